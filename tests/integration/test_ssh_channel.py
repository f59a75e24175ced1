"""The way to one node: what it says, and its end."""

from __future__ import annotations

import os
import queue
import threading

import pytest

from dynctl.ssh import channel
from dynctl.ssh.channel import Channel, Closed, Inbox

WITHIN_S = 20.0


class Eager(threading.Thread):
    """A thread that gets to its end before who starts it goes on, if it gets there at all."""

    def start(self) -> None:
        super().start()
        self.join(0.5)


@pytest.mark.parametrize("eager", [False, True])
def test_a_child_that_ends_at_once_is_told_with_what_it_said(monkeypatch: pytest.MonkeyPatch, eager: bool) -> None:
    if eager:
        monkeypatch.setattr(channel.threading, "Thread", Eager)
    inbox: Inbox = queue.Queue()
    Channel("b", ["sh", "-c", "echo refused >&2; exit 7"], inbox, os.environ)
    assert inbox.get(timeout=WITHIN_S) == Closed("b", 7, ("refused",))
