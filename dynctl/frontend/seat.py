"""What a further process of the frontend is started with: its number, and descriptors that it inherits."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from typing import NamedTuple

_VARIABLE = "DYNCTL_FRONTEND_SEAT"
_PR_SET_PDEATHSIG = 1


class Seat(NamedTuple):
    """`link`: to the first process. `sock`: it listens. `board`: descriptor of the memory that all share."""

    number: int
    link: socket.socket
    sock: socket.socket
    board: int


def seat_variable(number: int, link: int, sock: int, board: int) -> dict[str, str]:
    """For the environment of the process to be started."""
    return {_VARIABLE: f"{number} {link} {sock} {board}"}


def take_seat() -> Seat | None:
    """This process's, which from now on does not outlive the first one; None in the first one itself."""
    given = os.environ.pop(_VARIABLE, None)
    if given is None:
        return None
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    number, link, sock, board = map(int, given.split())
    for descriptor in (link, sock, board):
        os.set_inheritable(descriptor, False)
    return Seat(number, socket.socket(fileno=link), socket.socket(fileno=sock), board)
