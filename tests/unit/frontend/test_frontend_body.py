"""The legs' bodies."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.body import decode_body, one_sequence, parse_fields, prefill_body
from dynctl.frontend.errors import Failure
from dynctl.frontend.legs import Handover


def fields(**members: object) -> dict[str, msgspec.Raw]:
    return parse_fields(json.dumps(members).encode())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"])
def test_a_value_that_is_no_utf_8_is_refused(text: bytes) -> None:
    with pytest.raises(Failure) as caught:
        parse_fields(b'{"prompt":"' + text + b'"}')
    assert caught.value.status == 400


def test_prefill_body_is_the_clients_with_the_protocols_changes() -> None:
    body = fields(
        model="m",
        prompt="hé",
        stream=True,
        stream_options={"include_usage": True},
        min_tokens=5,
        max_tokens=100,
        temperature=0.0,
        nested={"stream": True, "max_tokens": 3},
    )
    assert json.loads(prefill_body(body)) == {
        "model": "m",
        "prompt": "hé",
        "temperature": 0.0,
        "nested": {"stream": True, "max_tokens": 3},
        "stream": False,
        "max_tokens": 1,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }


def test_max_completion_tokens_only_where_the_client_has_it() -> None:
    assert "max_completion_tokens" not in json.loads(prefill_body(fields(messages=[])))
    assert json.loads(prefill_body(fields(max_completion_tokens=9)))["max_completion_tokens"] == 1


def test_values_are_not_reencoded() -> None:
    body = parse_fields(b'{"temperature": 1.50, "seed":12345678901234567890123, "x": "\\u00e9"}')
    leg = prefill_body(body)
    assert b'"temperature":1.50' in leg
    assert b"12345678901234567890123" in leg
    assert b'"\\u00e9"' in leg


def test_decode_body_keeps_the_clients_bytes() -> None:
    body = b'{ "model" : "m",\n "prompt": "a}b" }  \n'
    params = b'{"a": 1.50,"b":[ ]}'
    assert decode_body(body, params) == b'{ "model" : "m",\n "prompt": "a}b","kv_transfer_params":' + params + b"}"
    assert decode_body(b" { } ", b"{}") == b' {"kv_transfer_params":{}}'
    assert decode_body(b'{"a":{}}', b"{}") == b'{"a":{},"kv_transfer_params":{}}'


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5), st.sampled_from([None, 2]), st.booleans())
def test_decode_body_adds_one_member_and_changes_none(
    document: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    document.pop("kv_transfer_params", None)
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json.loads(decode_body(body, b'{"k":1}')) == {**document, "kv_transfer_params": {"k": 1}}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"a":}', b"{}{}", b'{"a":1,}', b"\xff\xfe", b'"x"', b"[" * 100_000, b"{a:1}"]
)
def test_what_is_not_an_object_is_the_clients_error(body: bytes) -> None:
    with pytest.raises(Failure) as caught:
        parse_fields(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["kv_transfer_params", "kv_transfer_p\\u0061rams"])
def test_clients_may_not_set_kv_parameters(name: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_fields(f'{{"prompt":"a","{name}":null}}'.encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "members",
    [
        {"prompt": "a"},
        {"prompt": ["a"]},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2, 3]]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"prompt": "a", "n": 1, "best_of": None, "echo": False, "prompt_logprobs": None},
    ],
)
def test_one_sequence(members: dict[str, object]) -> None:
    assert one_sequence(fields(**members))


@pytest.mark.parametrize(
    "members",
    [
        {"prompt": ["a", "b"]},
        {"prompt": [[1], [2]]},
        {"prompt": "a", "n": 2},
        {"prompt": "a", "best_of": 2},
        {"prompt": "a", "echo": True},
        {"prompt": "a", "prompt_logprobs": 0},
        {"prompt": "a", "use_beam_search": True},
        {"prompt": None, "prompt_embeds": "AAAA"},
    ],
)
def test_not_one_sequence(members: dict[str, object]) -> None:
    assert not one_sequence(fields(**members))


def test_handover_passes_the_parameters_verbatim() -> None:
    reply = b'{"id":"x","kv_transfer_params": {"a": 1.50, "new_field":[ 1 ]} ,"choices":[]}'
    assert Handover().decode_params("id", reply) == b'{"a": 1.50, "new_field":[ 1 ]}'
    assert Handover().decode_params("id", b'{"kv_transfer_params":null}') is None
    assert Handover().decode_params("id", b"{}") is None
    with pytest.raises(msgspec.DecodeError):
        Handover().decode_params("id", b"<html>")
