"""The control socket's words, there and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.errors import DynctlError, TransportError
from dynctl.frontend.messages import Hello, Report, RequestRecord
from dynctl.runtime.messages import (
    AskStatus,
    Attach,
    Down,
    Failed,
    Gone,
    Happened,
    Ready,
    StatusNow,
    encode,
    from_supervisor,
    to_supervisor,
)
from dynctl.store.event import Event
from dynctl.telemetry.status import PairStatus, RunStatus, TransportStatus

STATUS = RunStatus(
    name="x",
    state="ready",
    transport=TransportStatus(required="auto", pairs=(PairStatus(from_="prefill-0", to="decode-0", bytes=12),)),
)
EVENT = Event(seq=1, at=1.5, kind="pair", message="proven\nin two lines", data={"from": "prefill-0"})
RECORD = RequestRecord(id="a", at=1.0, path="/v1/completions", mode="disaggregated", status=200, streamed=True)


@pytest.mark.parametrize("message", [
    Attach(), Attach(starter=True, requests=True), AskStatus(), Down(grace_s=2.5, now=True), Hello(pid=7),
    Report(requests=(RECORD,), health="degraded", reason="no prefill"),
], ids=lambda message: type(message).__name__)  # fmt: skip
def test_to_the_supervisor(message: msgspec.Struct) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert to_supervisor(line) == message


@pytest.mark.parametrize("message", [
    Happened(event=EVENT), StatusNow(status=STATUS), Ready(), Gone(survivors=("pid 7",)),
    Failed(exit_code=4, cause="slow", why=("tcp",), tail=("last",)),
], ids=lambda message: type(message).__name__)  # fmt: skip
def test_from_the_supervisor(message: msgspec.Struct) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_supervisor(line) == message


def test_a_frontend_speaks_the_same_as_a_viewer() -> None:
    assert to_supervisor(b'{"op":"frontend","pid":3}') == Hello(pid=3)
    assert to_supervisor(b'{"op":"attach","someday":1}') == Attach()


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"op":"event"}', b'{"op":"dance"}', b"\xff", b'{"op":"down"'])
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        to_supervisor(line)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_message_or_a_decode_error(line: bytes) -> None:
    for decode in (to_supervisor, from_supervisor):
        try:
            decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def test_an_error_crosses_the_wire_as_its_user_should_see_it() -> None:
    error = TransportError("too slow", where="transport.require", why=["tcp", "no NIC"], fix="buy one", tail=["line"])
    message = from_supervisor(encode(Failed.of(error)))
    assert isinstance(message, Failed)
    again = message.error()
    assert isinstance(again, DynctlError)
    assert (again.exit_code, again.lines()) == (4, error.lines())
