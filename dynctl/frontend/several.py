"""How a frontend's processes come together: sockets, the board, and what they tell each other."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from dynctl.frontend.board import Board, SharedLoad
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.first import First
from dynctl.frontend.further import Further
from dynctl.frontend.link import Doubted, Freed, Seen
from dynctl.frontend.listen import bind, bind_beside, bind_unix
from dynctl.frontend.places import Places, SharedPlaces
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.seat import take_seat
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.together import Together
from dynctl.frontend.workers import Workers


def gather(
    host: str,
    port: int,
    uds: Path | None,
    processes: int,
    *,
    supervised: bool,
    limits: RetryLimits | None,
    log: Callable[[str], None],
) -> tuple[socket.socket, Together | None]:
    """Where this process listens, and what it knows of the others; None where it is alone. Raises UsageError."""
    seat = take_seat()
    if seat is not None:
        return seat.sock, Further(Board(seat.board, seat.number, processes), seat, told=not supervised)
    sock = bind_unix(uds) if uds else bind(host, port, shared=processes > 1)
    if processes == 1:
        return sock, None
    board = Board.made(processes)
    board.budget[0] = (limits or RetryLimits()).burst
    others = [bind_beside(sock) for _ in range(processes - 1)]
    return sock, First(board, others, relays=not supervised, log=log)


def workers_of(routing: str, together: Together | None) -> Workers:
    """The table of workers, which shares its view of load and faults with the other processes."""
    if together is None:
        return Workers(Chooser(routing))
    return Workers(
        Chooser(
            routing,
            load=SharedLoad(together.board),
            tell=lambda worker, blocks: together.tell(Seen(worker, blocks)),
        ),
        tell=lambda worker, failed: together.tell(Doubted(worker, failed)),
    )


def places_of(shaping: Shaping | None, together: Together | None) -> Places | None:
    """The places of admission, where all processes have them in common."""
    if together is None or shaping is None or shaping.admission is None:
        return None
    return SharedPlaces(shaping.admission.running, together.board, tell=lambda: together.tell(Freed()))
