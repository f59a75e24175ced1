"""The loader against servers that do what servers do: its figures stay true, and what is wrong has a name."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvloop

from dynctl.bench.job import Job, Result, Session, Shot
from dynctl.bench.loader import Loader
from dynctl.bench.sample import itl_ms, ttft_ms
from dynctl.bench.wire import SO_TIMESTAMPNS
from tests.integration.mock_stream import DONE, HEAD, ROLE, Mock, Writer, end, send, token, usage


def load(url: str, count: int = 1, *, concurrency: int = 1, at_s: list[float] | None = None, **more: float) -> Result:
    """Sends `count` requests, in a closed loop or at given times."""
    shots = [Session((Shot(id=f"r{n}", body=b"{}", asked_tokens=4),), at_s[n] if at_s else None) for n in range(count)]
    job = Job(
        url=url,
        path="/v1/chat/completions",
        sessions=tuple(shots),
        concurrency=0 if at_s else concurrency,
        connections=concurrency,
        **more,  # type: ignore[arg-type]
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(job))


async def _run(job: Job) -> Result:
    return await Loader(job).run()


def test_the_role_chunk_is_no_token_and_chunks_are_no_tokens() -> None:
    """The role at once, then two tokens per chunk: TTFT is that of the first content, ITL is by usage."""
    sent: list[float] = []

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        await send(writer, ROLE)
        for _ in range(4):
            await asyncio.sleep(0.05)
            sent.append(await send(writer, token(" two words")))
        await send(writer, usage(7, 8) + DONE)
        await end(writer)

    with Mock(reply) as mock:
        (sample,) = load(mock.url).samples
    assert sample.error is None
    assert (sample.input_tokens, sample.output_tokens, len(sample.chunk_s)) == (7, 8, 4)
    # every reading lies after the write it belongs to and before the next one
    for read, write, following in zip(sample.chunk_s, sent, [*sent[1:], float("inf")], strict=True):
        assert write <= read < following
    ttft, itl = ttft_ms(sample), itl_ms(sample)
    assert ttft is not None
    assert ttft >= 49, "not the role chunk's time"
    assert itl == pytest.approx((sample.chunk_s[-1] - sample.chunk_s[0]) * 1000 / 7)


def test_characters_and_lines_cut_across_reads() -> None:
    """Every byte in a read of its own: the content is found, and no error is made of it."""

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        for byte in ROLE + token("żółw 海"):
            await send(writer, bytes([byte]))
        await send(writer, usage(1, 1) + DONE)
        await end(writer)

    with Mock(reply) as mock:
        (sample,) = load(mock.url).samples
    assert (sample.error, len(sample.chunk_s), sample.output_tokens) == (None, 1, 1)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([token(), b"data: {oops\n\n", DONE], "malformed event"),
        ([token()], "without [DONE]"),
        ([b'{"choices": []}'], "no stream"),
        ([b'data: {"error": {"message": "out of memory"}}\n\n', DONE], "out of memory"),
        ([b"data: \xff\xfe\n\n", DONE], "malformed event"),
    ],
)
def test_what_is_wrong_with_a_stream_has_a_name(events: list[bytes], said: str) -> None:
    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        for event in events:
            await send(writer, event)
        await end(writer)

    with Mock(reply) as mock:
        (sample,) = load(mock.url).samples
    assert sample.error is not None
    assert said in sample.error
    assert not sample.served


def test_no_usage_is_no_error() -> None:
    """Chunks are counted then."""

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        await send(writer, token() + token())
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        (sample,) = load(mock.url).samples
    assert (sample.error, sample.output_tokens, sample.tokens) == (None, None, 2)


def test_connections_are_opened_before_and_used_again() -> None:
    """Twelve requests over the three that were opened first."""

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        await send(writer, token())
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        result = load(mock.url, 12, concurrency=3)
        assert mock.connections == 3
    assert [sample.error for sample in result.samples] == [None] * 12
    assert not result.interrupted


def test_a_stream_that_stands_still_is_ended() -> None:
    """And the rest goes on."""

    async def reply(writer: Writer, number: int) -> None:
        writer.write(HEAD)
        await send(writer, token())
        if number == 0:
            await asyncio.sleep(3600)
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        result = load(mock.url, 2, stall_s=0.2)
    by_id = {sample.id: sample for sample in result.samples}
    assert "stalled" in str(by_id["r0"].error)
    assert by_id["r1"].error is None


def test_refusals_keep_the_servers_words() -> None:
    """A burst of them does not end the round; the next requests are served."""

    async def reply(writer: Writer, number: int) -> None:
        if number < 3:
            body = b'{"error": {"message": "the queue is full"}}'
            writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            return
        writer.write(HEAD)
        await send(writer, token() + DONE)
        await end(writer)

    with Mock(reply) as mock:
        result = load(mock.url, 5)
    assert [sample.error for sample in result.samples[:3]] == ["HTTP 503: the queue is full"] * 3
    assert [sample.error for sample in result.samples[3:]] == [None, None]
    assert result.gave_up is None


def test_a_server_that_dies_ends_the_round() -> None:
    """Not a thousand failures: it gives up, and says after what."""

    async def reply(writer: Writer, number: int) -> None:
        writer.write(HEAD)
        await send(writer, token())
        if number == 2:
            mock.close_now()
        if number >= 2:
            writer.transport.abort()
            return
        await send(writer, DONE)
        await end(writer)

    with Mock(reply) as mock:
        result = load(mock.url, 1000)
    assert result.interrupted
    assert result.gave_up
    assert len(result.samples) < 100


def test_a_stalled_server_can_not_hide_from_an_open_loop() -> None:
    """The first answer takes 0.3 s and the cap is one: those due meanwhile count from when they were due."""

    async def reply(writer: Writer, number: int) -> None:
        if number == 0:
            await asyncio.sleep(0.3)
        writer.write(HEAD)
        await send(writer, token() + DONE)
        await end(writer)

    with Mock(reply) as mock:
        shots = [Session((Shot(id=f"r{n}", body=b"{}"),), 0.01 * n) for n in range(5)]
        job = Job(url=mock.url, path="/x", sessions=tuple(shots), concurrency=1)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_run(job))
    waits = [ttft_ms(sample) or 0.0 for sample in sorted(result.samples, key=lambda s: s.id)]
    assert waits[0] >= 299
    assert all(wait >= 250 for wait in waits[1:]), waits
    assert result.health.late_p99_ms is not None
    assert result.health.late_p99_ms > 200


@contextlib.contextmanager
def kernel_stamps() -> Iterator[None]:
    """The kernel stamps packets while somebody asks for it; it begins a moment after the first one did."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as reader,
        listener.accept()[0] as writer,
    ):
        reader.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for _ in range(10_000):
            writer.send(b"x")
            if reader.recvmsg(1, 64)[1]:
                yield
                return
        pytest.skip("no stamps from this kernel")


def test_a_read_counts_from_when_the_kernel_had_it() -> None:
    """The loader's loop stands still while the token comes, and long after: its time is that of its arrival."""
    standing, sent = threading.Event(), threading.Event()
    sent_s: list[float] = []
    released_s: list[float] = []

    async def reply(writer: Writer, _: int) -> None:
        writer.write(HEAD)
        await writer.drain()
        runner.get_loop().call_soon_threadsafe(stand_still)
        await asyncio.to_thread(standing.wait, 10)
        sent_s.append(await send(writer, token()))
        sent.set()
        await asyncio.to_thread(released.wait, 10)
        await send(writer, usage(1, 1) + DONE)
        await end(writer)

    def stand_still() -> None:
        standing.set()
        sent.wait(10)
        released_s.append(time.perf_counter())
        released.set()

    released = threading.Event()
    with kernel_stamps(), Mock(reply) as mock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        job = Job(url=mock.url, path="/x", sessions=(Session((Shot(id="r", body=b"{}"),)),), concurrency=1)
        (sample,) = runner.run(_run(job)).samples
    assert sample.error is None
    assert sent_s[0] - 1e-4 <= sample.chunk_s[0] < released_s[0]


def test_a_large_request_goes_out_whole() -> None:
    """More than a socket takes at once."""

    async def reply(writer: Writer, number: int) -> None:
        lengths.append(len(mock.bodies[number]))
        writer.write(HEAD)
        await send(writer, token() + DONE)
        await end(writer)

    lengths: list[int] = []
    with Mock(reply) as mock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        shot = Shot(id="r", body=b'{"prompt": "%s"}' % (b"x" * 8_000_000))
        job = Job(url=mock.url, path="/x", sessions=(Session((shot,)),), concurrency=1)
        (sample,) = runner.run(_run(job)).samples
    assert (sample.error, lengths) == (None, [len(shot.body)])
