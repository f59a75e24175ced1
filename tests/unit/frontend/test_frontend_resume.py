"""Streams that are carried on: what a client gets of them, and what the next worker is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynctl.frontend.body import parse_fields
from dynctl.frontend.resume import CHAT, COMPLETIONS, continuation, limit_of, transcript_for
from dynctl.frontend.transcript import DONE, Transcript

HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
CHAT_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
OTHER = {"id": "cmpl-9", "object": "text_completion", "created": 9, "model": "m"}


def event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode()


def token(
    text: str, ids: list[int], finish: str | None = None, head: dict[str, Any] = HEAD, **more: Any
) -> dict[str, Any]:
    """A chunk of a completion, as vLLM writes it."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    return {**head, "choices": [{**choice, "prompt_token_ids": None, "token_ids": ids, **more}]}


def begun(text: str = "a", ids: tuple[int, ...] = (5,), **options: bool) -> Transcript:
    """A completion's transcript after its first chunk; the prompt has three tokens."""
    transcript = Transcript(**{"chat": False, "wants_ids": False, "wants_usage": False, **options})
    transcript.take(event(token(text, list(ids), prompt_token_ids=[1, 2, 3])))
    return transcript


def sent(data: bytes) -> dict[str, Any]:
    """The only event of what a client gets."""
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    found: dict[str, Any] = json.loads(data[6:])
    return found


def test_a_client_that_did_not_ask_for_ids_gets_none_and_all_else_as_it_came() -> None:
    transcript = Transcript(chat=False, wants_ids=False, wants_usage=False)
    given = token("é", [5, 6], prompt_token_ids=[1, 2, 3])
    assert sent(transcript.take(event(given))) == token("é", [], token_ids=None)
    assert (transcript.prompt, transcript.ids) == ([1, 2, 3], [5, 6])


def test_a_client_that_asked_for_ids_gets_them() -> None:
    transcript = Transcript(chat=False, wants_ids=True, wants_usage=False)
    given = token("a", [5], prompt_token_ids=[1, 2, 3])
    assert sent(transcript.take(event(given))) == given


def test_tokens_without_text_wait_for_it_and_are_made_anew_where_it_never_came() -> None:
    transcript = begun()
    assert transcript.take(event(token("", [6]))) == b""
    assert transcript.ids == [5]
    both = transcript.take(event(token("é", [7])))
    assert both.count(b"data: ") == 2
    assert transcript.ids == [5, 6, 7]
    transcript.take(event(token("", [8])))
    transcript.carry_on()
    assert transcript.take(event(token("x", [8, 9], head=OTHER))).count(b"data: ") == 1
    assert transcript.ids == [5, 6, 7, 8, 9]


def test_what_goes_on_has_the_head_of_the_first_stream_and_counts_as_one_request() -> None:
    transcript = begun(ids=(5, 6), wants_usage=True)
    transcript.carry_on()
    usage = {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": None}
    last = {**token("b", [7, 8], "length", OTHER), "usage": usage}
    assert sent(transcript.take(event(last))) == {
        **token("b", [], "length", token_ids=None),
        "usage": {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": None},
    }
    whole = {**OTHER, "choices": [], "usage": usage}
    assert sent(transcript.take(event(whole)))["usage"]["total_tokens"] == 7
    assert transcript.closing() == DONE


def test_a_chat_goes_on_in_the_shape_of_a_chat() -> None:
    transcript = Transcript(chat=True, wants_ids=True, wants_usage=False)
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    first = {**CHAT_HEAD, "choices": [role], "prompt_token_ids": [1, 2]}
    assert sent(transcript.take(event(first))) == first
    assert transcript.can_go_on
    transcript.carry_on()
    assert sent(transcript.take(event(token("x", [4], head=OTHER)))) == {
        **CHAT_HEAD,
        "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None, "token_ids": [4]}],
    }
    assert sent(transcript.take(event(token("", [9], "stop", OTHER))))["choices"] == [
        {
            **{"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "stop"},
            **{"stop_reason": None, "token_ids": [9]},
        }
    ]
    assert transcript.finished


@pytest.mark.parametrize("delta", [{"reasoning": "hm"}, {"tool_calls": [{"index": 0}]}])
def test_what_a_parser_made_is_not_carried_on(delta: dict[str, Any]) -> None:
    transcript = Transcript(chat=True, wants_ids=False, wants_usage=False)
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    transcript.take(event({**CHAT_HEAD, "choices": [choice], "prompt_token_ids": [1]}))
    assert transcript.can_go_on
    transcript.take(event({**CHAT_HEAD, "choices": [{**choice, "delta": delta, "token_ids": [3]}]}))
    assert not transcript.can_go_on


@pytest.mark.parametrize(
    "given",
    [
        {"error": {"message": "EngineCore encountered an issue.", "code": 500}},
        token("", [], "abort"),
        token("", [], "error"),
    ],
)
def test_an_engine_that_gives_up_has_broken_the_stream(given: dict[str, Any]) -> None:
    transcript = begun()
    assert transcript.take(event(given)) == b""
    assert transcript.broken
    assert transcript.can_go_on
    transcript.carry_on()
    assert transcript.broken is None


def test_the_clients_own_errors_are_told() -> None:
    transcript = begun()
    assert b"too long" in transcript.take(event({"error": {"message": "too long", "code": 400}}))
    assert transcript.broken is None
    assert not transcript.can_go_on


def test_a_stream_that_breaks_off_after_its_last_token_is_given_its_end() -> None:
    transcript = begun(wants_usage=True)
    transcript.take(event(token("b", [6], "stop")))
    usage, done, rest = transcript.closing().split(b"\n\n")
    assert json.loads(usage[6:])["usage"] == {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
    assert (done, rest) == (b"data: [DONE]", b"")
    transcript.take(b"data: [DONE]")
    assert transcript.closing() == b""


def test_the_completion_that_goes_on() -> None:
    fields = parse_fields(
        b'{"model":"m","prompt":"hi","stream":true,"max_tokens":9,"min_tokens":4,"temperature":0,"x":[1]}'
    )
    made = continuation(COMPLETIONS, fields, begun(ids=(5, 6)), 9)
    assert {name: json.loads(bytes(value)) for name, value in made.items()} == {
        **{"model": "m", "prompt": [1, 2, 3, 5, 6], "stream": True, "max_tokens": 7, "min_tokens": 2},
        **{"temperature": 0, "x": [1], "return_token_ids": True},
    }


def test_a_chat_goes_on_as_a_completion_that_samples_alike() -> None:
    fields = parse_fields(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"seed":3,"chat_template":"t",'
        b'"stream_options":{"include_usage":true},"max_completion_tokens":30}'
    )
    made = continuation(CHAT, fields, begun(ids=(5, 6)), 30)
    assert {name: json.loads(bytes(value)) for name, value in made.items()} == {
        **{"model": "m", "prompt": [1, 2, 3, 5, 6], "stream": True, "max_tokens": 28, "seed": 3},
        **{"stream_options": {"include_usage": True}, "return_token_ids": True},
    }


@pytest.mark.parametrize(
    ("target", "body", "limit"),
    [
        (COMPLETIONS, b"{}", 16),
        (COMPLETIONS, b'{"max_tokens":3}', 3),
        (CHAT, b"{}", None),
        (CHAT, b'{"max_tokens":3}', 3),
        (CHAT, b'{"max_tokens":3,"max_completion_tokens":4}', 4),
    ],
)
def test_limits_are_those_of_the_api(target: bytes, body: bytes, limit: int | None) -> None:
    assert limit_of(target, parse_fields(body)) == limit


CHAT_BODY = '{"stream":true,"messages":[{"role":"user","content":"x"}]%s}'
BODY = '{"stream":true,"prompt":"x"%s}'


@pytest.mark.parametrize(
    ("target", "body", "followed"),
    [
        (COMPLETIONS, BODY % "", True),
        (COMPLETIONS, '{"prompt":"x"}', False),
        (COMPLETIONS, BODY % ',"stop":["x"]', False),
        (COMPLETIONS, BODY % ',"stop":[]', True),
        (COMPLETIONS, BODY % ',"logprobs":1', False),
        (COMPLETIONS, BODY % ',"n":2', False),
        (COMPLETIONS, BODY % ',"frequency_penalty":0.5', False),
        (COMPLETIONS, BODY % ',"frequency_penalty":0.0', True),
        (COMPLETIONS, BODY % ',"response_format":{"type":"json_object"}', False),
        (CHAT, CHAT_BODY % "", True),
        (CHAT, CHAT_BODY % ',"tools":[{"type":"function"}]', False),
        (CHAT, CHAT_BODY % ',"tools":[{"type":"function"}],"tool_choice":"none"', True),
        (CHAT, CHAT_BODY % ',"response_format":{"type":"text"}', True),
        (CHAT, '{"stream":true,"messages":[{"content":[{"type":"text","text":"a"}]}]}', True),
        (CHAT, '{"stream":true,"messages":[{"content":[{"type":"image_url"}]}]}', False),
        (CHAT, '{"stream":true,"messages":3}', False),
        (b"/v1/responses", BODY % "", False),
    ],
)
def test_which_streams_are_followed(target: bytes, body: str, followed: bool) -> None:
    assert (transcript_for(target, parse_fields(body.encode())) is not None) is followed
