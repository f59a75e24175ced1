"""Questions to other nodes, by number: each gets its answer, or the loss of the link that it went over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from dynctl.errors import TransportError
from dynctl.fabric.peer.link import Link


class Questions:
    """Those that wait for an answer."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[Link, asyncio.Future[Any]]] = {}
        self._count = 0

    async def ask(self, link: Link | None, question: Callable[[int], msgspec.Struct]) -> Any:
        """The answer. TransportError where there is no link, or when it is lost first; waits as long as it takes."""
        if link is None:
            raise TransportError("it can't be reached")
        self._count += 1
        number, answer = self._count, asyncio.get_running_loop().create_future()
        self._asked[number] = link, answer
        try:
            link.send(question(number))
            return await answer
        finally:
            self._asked.pop(number, None)

    def answered(self, number: int, answer: object) -> None:
        """It came; nobody may wait for it any more."""
        found = self._asked.get(number)
        if found and not found[1].done():
            found[1].set_result(answer)

    def lost(self, link: Link) -> None:
        """Nothing comes over that link any more."""
        for asked_over, answer in self._asked.values():
            if asked_over is link and not answer.done():
                answer.set_exception(TransportError("the link to it was lost"))
