"""What a request's headers say: its id, its API key, the pair it is directed to and the token for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.errors import UsageError
from dynctl.frontend.directed import Pair, directed_pair, read_token
from dynctl.frontend.errors import Failure
from dynctl.frontend.job import request_id
from dynctl.frontend.keys import check_key, read_keys
from dynctl.http.message import Headers, Request


def request(*headers: tuple[bytes, bytes]) -> Request:
    fields: Headers = list(headers)
    return Request(
        method="POST", target=b"/", path="/", headers=fields, body=b"", received=0.0, http10=False, keep_alive=True
    )


def test_request_ids() -> None:
    assert request_id(request((b"x-request-id", b"abc-1.2:3"))) == b"abc-1.2:3"
    for bad in (b"", b"a b", b"a\tb", b"x" * 201, "é".encode(), b'a"b'):
        made = request_id(request((b"x-request-id", bad)))
        assert made != bad
        assert len(made) == 32
    assert request_id(request()) != request_id(request())


def test_api_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n\nsk-one\n  sk-two  \n")
    keys = read_keys(path)
    assert keys == (b"sk-one", b"sk-two")
    for good in (b"Bearer sk-one", b"bearer sk-two", b"Bearer  sk-two "):
        check_key(request((b"authorization", good)), keys)
    for bad in (b"", b"sk-one", b"Basic sk-one", b"Bearer sk-on", b"Bearer ", b"Bearer sk-one,sk-two", b"Bearer \xff"):
        with pytest.raises(Failure) as caught:
            check_key(request((b"authorization", bad)), keys)
        assert caught.value.status == 401
    with pytest.raises(Failure):
        check_key(request(), keys)
    check_key(request(), ())


def test_bad_key_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (empty, binary, tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError):
            read_keys(path)
    assert read_keys(None) == ()


def pair_of(value: bytes, token: bytes = b"t0k") -> Pair | None:
    return directed_pair(request((b"x-dynctl-pair", value), (b"x-dynctl-token", token)), b"t0k")


def test_directed_pairs() -> None:
    assert directed_pair(request((b"x-dynctl-token", b"wrong")), b"t0k") is None
    assert pair_of(b"prefill-0>decode-1") == Pair("prefill-0", "decode-1")
    assert pair_of(b" prefill-0 > decode-1 ") == Pair("prefill-0", "decode-1")
    assert pair_of(b"decode-1") == Pair(None, "decode-1")
    for bad in (b"prefill-0>", b">decode-0"):
        with pytest.raises(Failure) as caught:
            pair_of(bad)
        assert caught.value.status == 400


@pytest.mark.parametrize(("given", "token"), [(b"wrong", b"t0k"), (b"", b"t0k"), (b"\xff", b"t0k"), (b"", None)])
def test_directed_requests_need_the_token(given: bytes, token: bytes | None) -> None:
    with pytest.raises(Failure) as caught:
        directed_pair(request((b"x-dynctl-pair", b"decode-0"), (b"x-dynctl-token", given)), token)
    assert caught.value.status == 403


def test_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNCTL_TOKEN_FILE", raising=False)
    assert read_token() is None
    path = tmp_path / "token"
    monkeypatch.setenv("DYNCTL_TOKEN_FILE", str(path))
    with pytest.raises(UsageError):
        read_token()
    path.write_text("")
    with pytest.raises(UsageError):
        read_token()
    path.write_text("s3cret\n")
    assert read_token() == b"s3cret"
