"""A worker on several nodes, as vLLM 0.32 makes one: a leader with the API server, and parts without (`--headless`).

All meet at the leader's master port while they start, and take part in every step. As in vLLM nobody watches the
others: a leader whose part is gone learns of it with the next token (its engine then dies), one whose part was
stopped by a signal waits for it, and a part whose leader is gone waits for ever.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from typing import NoReturn

from .config import EngineConfig, parse
from .control import Control
from .processes import set_title
from .startup import PHASES, die, hang, say
from .ucx import UcxLog

STEP, READ = b"s", b"r"
_RETRY_S = 0.05


class PartGoneError(Exception):
    """A collective operation failed: one of the parts is not there any more."""


class Group:
    """The leader's end: listens at once, so that its port is taken; `gather` waits for all parts."""

    def __init__(self, config: EngineConfig) -> None:
        self._missing = config.nnodes - 1
        self._parts: list[socket.socket] = []
        self._turn = asyncio.Lock()
        self.listener: socket.socket | None = None
        if self._missing:
            self.listener = socket.create_server((config.master_addr, config.master_port))

    def gather(self) -> None:
        """Blocks until every part is here."""
        while self.listener and len(self._parts) < self._missing:
            part, _ = self.listener.accept()
            self._parts.append(part)

    async def step(self, what: bytes = STEP) -> None:
        """Every part does it, too. PartGoneError."""
        loop = asyncio.get_running_loop()
        for part in self._parts:
            part.setblocking(False)
            try:
                async with self._turn:
                    await loop.sock_sendall(part, what)
                    if not await loop.sock_recv(part, 1):
                        raise PartGoneError
            except OSError as error:
                raise PartGoneError from error


def run_headless(argv: list[str]) -> NoReturn:
    """A part: its process, and a worker below it which goes when either ends."""
    config = parse(argv)
    control = Control(config.role, config.port)
    say(
        "INFO [serve.py:196] Launching vLLM (v0.32.0) headless multiproc executor, with head node address "
        f"{config.master_addr}:{config.master_port} for torch.distributed process group."
    )
    alive, held = os.pipe()  # the worker reads its end from it: EOF when the process above it is gone
    worker = os.fork()
    if worker == 0:
        os.close(held)
        _work(config, control, alive)
    os.close(alive)

    def end(number: int, _: object) -> None:
        os.kill(worker, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    _, status = os.waitpid(worker, 0)
    say("ERROR [multiproc_executor.py:259] Worker proc died unexpectedly, shutting down executor.")
    os._exit(os.waitstatus_to_exitcode(status) and 1)


def _work(config: EngineConfig, control: Control, alive: int) -> NoReturn:
    set_title(f"VLLM::Worker_TP{config.node_rank}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    knobs = control.read()
    ucx = UcxLog(os.getpid(), knobs.ucx_class)
    leader: socket.socket | None = None
    for phase in ("load", "weights", "kv_cache", "nixl", "register"):
        if phase in ("nixl", "register") and config.role == "worker":
            continue
        if phase == knobs.die_at_phase:
            die(knobs.die_message or "", knobs.exit_code)
        if phase == knobs.hang_at_phase:
            hang()
        if phase == "load":
            leader = _meet(config, alive)
        if phase == "nixl":
            ucx.start()
        for line in PHASES[phase]:
            now, today = time.strftime("%m-%d %H:%M:%S"), time.strftime("%Y-%m-%d %H:%M:%S")
            pid = os.getpid()
            length = f"{config.max_model_len:,}"
            say(line.format(now=now, today=today, model=config.model, core=pid, worker=pid, length=length))
        time.sleep(knobs.start_delay_s / len(PHASES))
    assert leader
    _take_part(leader, ucx, alive)


def _meet(config: EngineConfig, alive: int) -> socket.socket:
    while not select.select([alive], [], [], _RETRY_S)[0]:
        try:
            return socket.create_connection((config.master_addr, config.master_port))
        except OSError:
            continue
    os._exit(0)


def _take_part(leader: socket.socket, ucx: UcxLog, alive: int) -> NoReturn:
    heard = [leader.fileno()]
    while True:
        ready = select.select([alive, *heard], [], [])[0]
        if alive in ready:
            os._exit(0)
        try:
            what = leader.recv(1)
        except OSError:
            what = b""
        if not what:
            heard = []  # the leader is gone, which nobody here looks for
        elif what == READ:
            ucx.connect()
            ucx.read()
        if what:
            leader.sendall(what)
