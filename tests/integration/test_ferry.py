"""Many streams passed on at once: what the ferry reads arrives whole, in order, and as the protocol says."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from frontend_harness import BODY, Router, both_loops, on_uvloop, until
from stub_engine import STREAM_HEAD, Asked, Script, StubEngine, chunk, text_event

from dynctl.http.ferry import Ferry

FEW, MANY = 3, 24
EVENTS = 12


class Read:
    """A passenger that keeps what it is given, or fails at it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.data = b""
        self.ended = self.was_cut = False
        self._fails = fails

    def data_received(self, data: bytes) -> None:
        if self._fails:
            raise RuntimeError("no")
        self.data += data

    def ashore(self) -> None:
        self.ended = True

    def cut(self) -> None:
        self.was_cut = True


@contextmanager
def pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(count)]
    for _, ours in made:
        ours.setblocking(False)
    try:
        yield made
    finally:
        for pair in made:
            for end in pair:
                end.close()


@pytest.mark.parametrize("count", [FEW, MANY])
@both_loops
async def test_each_gets_its_own_bytes_until_the_other_side_closes(count: int) -> None:
    ferry = Ferry()
    with pairs(count) as ends:
        readers = [Read() for _ in ends]
        for (_, ours), reader in zip(ends, readers, strict=True):
            ferry.board(ours.fileno(), reader)
        for number in range(EVENTS):
            for index, (theirs, _) in enumerate(ends):
                theirs.send(b"%d:%d " % (index, number))
            await asyncio.sleep(0)
        for theirs, _ in ends:
            theirs.close()
        for (_, ours), reader in zip(ends, readers, strict=True):
            await until(lambda one=reader: one.ended)  # type: ignore[misc]
            ferry.leave(ours.fileno(), reader)
        for index, reader in enumerate(readers):
            assert reader.data == b"".join(b"%d:%d " % (index, number) for number in range(EVENTS))
    ferry.close()


@both_loops
async def test_who_fails_is_cut_and_the_others_lose_nothing() -> None:
    ferry, told = Ferry(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    with pairs(MANY) as ends:
        readers = [Read(fails=index == 1) for index in range(MANY)]
        for (theirs, ours), reader in zip(ends, readers, strict=True):
            ferry.board(ours.fileno(), reader)
            theirs.send(b"a")
        await until(lambda: all(reader.data or reader.was_cut for reader in readers))
        assert [reader.was_cut for reader in readers].index(True) == 1
        assert [type(error) for error in told] == [RuntimeError]
        ferry.close()


@pytest.mark.parametrize("count", [FEW, MANY])
@on_uvloop
async def test_what_else_has_come_is_served_before_the_rest(count: int) -> None:
    loop, ferry, order = asyncio.get_running_loop(), Ferry(), []
    with pairs(count + 1) as ends:
        (theirs, urgent), others = ends[0], ends[1:]

        class Slow(Read):
            def data_received(self, data: bytes) -> None:
                if not order:
                    theirs.send(b"a")  # in the middle of what is read in one go
                order.append("chunk")

        loop.add_reader(urgent, lambda: (order.append("urgent"), loop.remove_reader(urgent)))
        for far, ours in others:
            ferry.board(ours.fileno(), Slow())
            far.send(b"a")
        await until(lambda: order.count("chunk") == count)
        ferry.close()
    assert order.index("urgent") <= 2


@on_uvloop
async def test_who_leaves_while_others_are_served_has_what_was_read_for_it_once() -> None:
    loop, ferry = asyncio.get_running_loop(), Ferry()
    with pairs(MANY + 1) as ends:
        (theirs, urgent), others = ends[0], ends[1:]
        readers, had = [Read() for _ in others], list[bytes]()

        class First(Read):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                theirs.send(b"a")

        def leave() -> None:
            loop.remove_reader(urgent)
            had.append(readers[-1].data)
            ferry.leave(others[-1][1].fileno(), readers[-1])
            had.append(readers[-1].data)

        readers[0] = First()
        loop.add_reader(urgent, leave)
        for (far, ours), reader in zip(others, readers, strict=True):
            ferry.board(ours.fileno(), reader)
            far.send(b"a")
        await until(lambda: all(reader.data for reader in readers))
        others[-1][0].send(b"b")  # not the ferry's any more
        others[0][0].send(b"b")
        await until(lambda: readers[0].data == b"ab")
        ferry.close()
    assert had == [b"", b"a"]
    assert [reader.data for reader in readers[1:]] == [b"a"] * (MANY - 1)


@both_loops
async def test_a_descriptor_that_another_has_by_now_is_the_others() -> None:
    ferry, first, second = Ferry(), Read(), Read()
    with pairs(1) as ((_, ours),):
        descriptor = os.dup(ours.fileno())
        ferry.board(descriptor, first)
    os.close(descriptor)
    with pairs(1) as ((theirs, ours),):
        assert os.dup2(ours.fileno(), descriptor) == descriptor
        try:
            ferry.board(descriptor, second)
            ferry.leave(descriptor, first)
            theirs.send(b"a")
            await until(lambda: second.data == b"a")
        finally:
            ferry.close()
            os.close(descriptor)


def paced(asked: Asked) -> list[bytes]:
    """What a stub answers: it tells the request's prompt again, so that a mix-up shows."""
    return [text_event(f"{asked.json()['prompt']}/{number}\n\N{SNOWMAN}") for number in range(EVENTS)]


def steps(*, cut_after: int | None = None, odd: bool = False) -> Script:
    """A stream whose events come one by one; `odd`: its chunks are torn at any place."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for number, each in enumerate(paced(asked)):
            if number == cut_after:
                writer.close()
                return
            data = chunk(each)
            parts = [data[:number], data[number:]] if odd and number % 2 else [data]
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.002)
        writer.write(b"0\r\n\r\n")

    return script


@asynccontextmanager
async def decode(script: Script) -> AsyncIterator[tuple[Router, StubEngine]]:
    async with StubEngine(script) as engine, Router() as router:
        router.table(worker_0=engine.url)
        yield router, engine


async def asked(router: Router, number: int) -> str:
    return (await router.ask(BODY.replace(b'"hi"', b'"p%d"' % number))).text


@pytest.mark.parametrize("odd", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("count", [FEW, MANY])
@both_loops
async def test_streams_arrive_as_the_engine_wrote_them(count: int, odd: bool) -> None:
    async with decode(steps(odd=odd)) as (router, engine):
        for _ in range(2):  # the second time over the same connections
            texts = await asyncio.gather(*(asked(router, number) for number in range(count)))
            for number, text in enumerate(texts):
                answer = Asked("POST", "", {}, BODY.replace(b'"hi"', b'"p%d"' % number))
                assert text.encode() == b"".join(paced(answer))
        assert engine.connections == count
        assert {record.error for record in router.records} == {None}


@pytest.mark.parametrize("count", [FEW, MANY])
@both_loops
async def test_streams_that_break_off_say_so(count: int) -> None:
    async with decode(steps(cut_after=7)) as (router, _):
        texts = await asyncio.gather(*(asked(router, number) for number in range(count)))
        assert all("worker_lost" in text.splitlines()[-2] for text in texts)
        assert all(text.count('"text"') == 7 for text in texts)


@on_uvloop
async def test_clients_that_leave_take_only_their_own_streams_along() -> None:
    async with decode(steps()) as (router, engine):
        leaving = [asyncio.ensure_future(asked(router, number)) for number in range(MANY // 2)]
        staying = [asyncio.ensure_future(asked(router, number)) for number in range(MANY // 2)]
        await until(lambda: len(engine.asked) == MANY)
        for one in leaving:
            one.cancel()
        assert all(text.count('"text"') == EVENTS for text in await asyncio.gather(*staying))
        await until(lambda: len(router.records) == MANY)
        assert sorted(record.status for record in router.records) == [200] * (MANY // 2) + [499] * (MANY // 2)
