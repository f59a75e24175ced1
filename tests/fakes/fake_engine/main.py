"""`python -m vllm.entrypoints.openai.api_server` of a fake engine environment: processes, start-up, service, end."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from .config import EngineConfig, ModelMissingError, parse
from .control import Control
from .parts import Group
from .processes import Children, map_segment, start_children
from .record import Recorder
from .startup import die, go_up, hang, say
from .ucx import UcxLog, UcxRefusedError

if TYPE_CHECKING:
    from .engine import Engine

_NO_MODEL = (
    "OSError: Can't load the configuration of '{0}'. {0} is not a local folder and is not a valid model identifier "
    "listed on 'https://huggingface.co/models'"
)
_SIDE_TAKEN = "zmq.error.ZMQError: Address already in use (addr='tcp://{0}:{1}')"


def main() -> NoReturn:
    """Run until SIGTERM, SIGINT or the engine core's death."""
    try:
        config = parse(sys.argv[1:])
    except ModelMissingError as error:
        die(_NO_MODEL.format(error), 1)
    control = Control(config.role, config.port)
    knobs = control.read()
    http = _bind_http(config)
    side, side_error = _bind_side(config)
    group = Group(config)
    meeting = [group.listener.fileno()] if group.listener else []
    children = start_children([http.fileno(), *meeting], [side.fileno()] if side else [], segment=knobs.segment)
    _end_on_signal(children)
    pids = {"api": os.getpid(), "core": children.core, "worker": children.worker}
    ucx = UcxLog(children.worker, knobs.ucx_class)
    recorder = Recorder(config)
    recorder.command(pids)

    def start_nixl() -> None:
        if importlib.util.find_spec("nixl") is None:
            children.kill()
            die("ERROR NIXL is not available\nRuntimeError: NIXL is not available", 1)
        try:
            ucx.start()
        except UcxRefusedError as error:
            children.kill()
            die(f"nixl_cu12._bindings.nixlBackendError: {error}\nRuntimeError: Engine core initialization failed.", 1)

    def check_side_channel() -> None:
        if side_error:  # the listener's thread dies, and the start waits for it for ever
            say(_SIDE_TAKEN.format(config.side_host, config.side_port))
            hang()

    hooks = {"load": group.gather, "nixl": start_nixl, "init": check_side_channel}
    go_up(config, knobs, pids, hooks, children.kill)
    asyncio.run(_serve(config, control, children, ucx, recorder, http, side, group))
    os._exit(0)


def _bind_http(config: EngineConfig) -> socket.socket:
    """The HTTP port, taken before anything else, as vLLM does; listened on when all is ready."""
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        die(
            f"Traceback (most recent call last):\n    sock.bind(addr)\nOSError: [Errno {error.errno}] {error.strerror}",
            1,
        )
    return listener


def _bind_side(config: EngineConfig) -> tuple[socket.socket | None, OSError | None]:
    if config.role == "worker":
        return None, None
    from .sidechannel import listen

    try:
        return listen(config.side_host, config.side_port), None
    except OSError as error:
        return None, error


def _end_on_signal(children: Children) -> None:
    """Until the server runs: go at once, with the children."""

    def end(number: int, _: object) -> None:
        children.kill()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


async def _serve(
    config: EngineConfig,
    control: Control,
    children: Children,
    ucx: UcxLog,
    recorder: Recorder,
    http: socket.socket,
    side: socket.socket | None,
    group: Group,
) -> None:
    from aiohttp import web  # late: the children were forked without it

    from .engine import Engine
    from .server import Server

    over = asyncio.Event()
    engine = Engine(config, control, ucx, group)
    engine.core = children.core
    server = Server(engine, recorder, _crasher(children), over.set)
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.SockSite(runner, http).start()
    if side is not None:
        await engine.side.serve(side)
    say("INFO:     Application startup complete.")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _watch(children.core, over)
    await asyncio.wait(
        [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(over.wait())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    await _end(engine, control, children, asked=stop.is_set())


def _watch(pid: int, gone: asyncio.Event) -> None:
    """Set `gone` when the child `pid` ends."""
    loop, fd = asyncio.get_running_loop(), os.pidfd_open(pid)

    def readable() -> None:
        loop.remove_reader(fd)
        gone.set()

    loop.add_reader(fd, readable)


async def _end(engine: Engine, control: Control, children: Children, asked: bool) -> None:
    knobs = control.read()
    say(f"(APIServer pid={os.getpid()}) INFO [launcher.py:254] [shutdown] API server: shutdown triggered")
    if asked:
        held = map_segment() if knobs.term_segment else None
        await asyncio.sleep(knobs.term_delay_s)
        del held
    else:
        engine.dead = True
        say("ERROR AsyncLLM output_handler failed.")
        say("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.")
        await asyncio.sleep(knobs.core_exit_delay_s)
    children.kill()
    say("INFO:     Application shutdown complete.")
    sys.stdout.flush()
    os._exit(0)


def _crasher(children: Children) -> Callable[[], None]:
    def crash() -> None:
        say("ERROR EngineCore failed: the fake engine was told to crash")
        children.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    return crash
