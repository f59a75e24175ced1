"""Builds the engine environment, a virtual environment in the user's cache, once for each lock, machine and Python."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from pathlib import Path

from dynctl.engines.environment.cache import cache_root, exclusive, make_folder
from dynctl.engines.environment.child import run_child
from dynctl.engines.environment.driver import cuda_major, flavour_for, read_driver, unheard_gpus
from dynctl.engines.environment.interpreters import interpreters, running_python
from dynctl.engines.environment.lock import Lock, environment_key, read_lock
from dynctl.engines.environment.pip import TORCH_CPU_INDEX, NoWheelError, Pip
from dynctl.engines.environment.progress import Progress, megabytes
from dynctl.errors import HostError, RuntimeFailure, UsageError
from dynctl.replacing import replace

ENGINES = ("vllm", "dynamo")
MARKER = "dynctl-environment.json"  # written last: without it an environment is not one
ROOM_BYTES, ROOM_FACTOR = 2_000_000_000, 3.5  # room for: fixed part, and times the download
SELDOM = r"/(tests?|testing)/|/transformers/models/|/site-packages/(pip|setuptools)/"  # compiled when first imported
GENTLE = "import os, time; os.sched_yield = lambda sleep=time.sleep: sleep(0)\n"
"""What the interpreter of an environment for CPUs runs at its start, as vLLM does by itself under Python 3.11.0.

vLLM's workers call sched_yield without pause for a second after each message
(vllm/distributed/device_communicators/shm_broadcast.py, 0.32), and NIXL's progress threads never rest. Where all of
them share few cores, Linux 6.18 kept a worker from running for up to 48 s at a time.
"""
CHECK = """
import importlib.metadata as metadata, json, torch, vllm, nixl._api
if {cuda}:
    torch.cuda.init()
versions = {{"vllm": vllm.__version__, "torch": torch.__version__, "nixl": metadata.version("nixl")}}
if {dynamo}:
    import dynamo.frontend, dynamo.llm, dynamo.mocker
    versions["dynamo"] = metadata.version("ai-dynamo")
print(json.dumps(versions))
"""


def environment_folder(engine: str, flavour: str, lock: Lock, python: str) -> Path:
    """Where the environment for this machine and that Python belongs."""
    key = environment_key(lock.text, platform.machine(), python, cuda_major(flavour), _start_up(flavour))
    return cache_root() / "engines" / f"{engine}-{flavour}-{key}"


def interpreter_in(folder: Path) -> Path | None:
    """The interpreter of a complete environment; None where the folder is missing, unfinished or its Python is gone."""
    python = folder / "bin" / "python"
    return python if (folder / MARKER).is_file() and python.exists() else None


def recorded_versions(python: Path) -> dict[str, str] | None:
    """The versions in the environment that `make engine` built around this interpreter; None if it is not one."""
    try:
        return dict(json.loads((python.parent.parent / MARKER).read_text())["versions"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def find(engine: str, flavour: str, lock: Lock) -> Path | None:
    """The interpreter of a complete environment for this lock and machine, whichever Python it was made with."""
    own = running_python()
    for python in sorted(lock.pythons, key=lambda version: version != own):
        found = interpreter_in(environment_folder(engine, flavour, lock, python))
        if found:
            return found
    return None


def default_python(engine: str) -> Path | None:
    """The interpreter that `make engine` built for this engine and machine; None without one. Builds nothing."""
    engine = "dynamo" if engine.startswith("dynamo-") else engine
    if engine not in ENGINES:
        return None
    try:
        flavour = flavour_for(read_driver())
    except HostError:
        return None
    return find(engine, flavour, read_lock(f"{engine}-{flavour}"))


def build_environment(engine: str, progress: Progress) -> tuple[Path, bool]:
    """The engine's interpreter and whether it had to be built. Waits for another process that is building the same.

    Raises UsageError for an engine without an environment, HostError where this machine can't have one and
    RuntimeFailure where the build fails.
    """
    check_engine(engine)
    driver = read_driver()
    flavour = flavour_for(driver)
    if driver is None and unheard_gpus():
        progress.say("note: there is an NVIDIA GPU on the PCI bus but its driver does not answer: going on without it")
    lock = read_lock(f"{engine}-{flavour}")
    found = find(engine, flavour, lock)
    if found:
        return found, False
    missing: NoWheelError | None = None
    for version, interpreter in interpreters(lock.pythons):
        try:
            return _build(engine, flavour, lock, version, interpreter, progress)
        except NoWheelError as error:
            missing = missing or error
            progress.say(f"{error.cause} ({version})")
    assert missing is not None  # noqa: S101  interpreters() yields at least one or raises
    raise missing


def check_engine(engine: str) -> None:
    """Raises UsageError for an engine that this version can't build an environment for."""
    if engine in ENGINES:
        return
    fix = "use " + " or ".join(f"ENGINE={name}" for name in ENGINES)
    raise UsageError(f"no environment can be built for the engine {engine!r}", fix=fix)


def _build(
    engine: str, flavour: str, lock: Lock, version: str, interpreter: str, progress: Progress
) -> tuple[Path, bool]:
    folder = environment_folder(engine, flavour, lock, version)

    def waiting(turn: int) -> None:
        if turn == 0:
            progress.phase("waiting for another build of this environment")
        progress.update("")

    with exclusive(folder.with_name(f"{folder.name}.lock"), waiting) as held:
        done = interpreter_in(folder)
        if done:
            return done, False
        python = _fill(folder, flavour, lock, interpreter, progress, held)
        versions = _check(python, engine, flavour, progress, held)
        facts = {"schema": 1, "engine": engine, "flavour": flavour, "python": version, "versions": versions}
        replace(folder / MARKER, json.dumps(facts, indent=2).encode() + b"\n")
        current = folder.parent / f"current-{engine}.json"
        replace(current, json.dumps({**facts, "interpreter": str(python)}, indent=2).encode() + b"\n")
    return python, True


def _fill(folder: Path, flavour: str, lock: Lock, interpreter: str, progress: Progress, held: int) -> Path:
    """Makes the environment from nothing. Virtual environments can't be moved, so it is made where it will stay."""
    if folder.exists():
        progress.phase("removing a build that was interrupted")
        shutil.rmtree(folder)
    make_folder(folder.parent)
    expect = lock.download_bytes.get(platform.machine(), 0)
    _check_room(folder.parent, ROOM_BYTES + int(expect * ROOM_FACTOR))
    progress.say(f"building {folder}")
    progress.phase(f"virtual environment for {lock.name}")
    log = folder.with_name(f"{folder.name}.log")
    log.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {interpreter} {sys.platform} {lock.name}\n")
    _run([interpreter, "-I", "-m", "venv", str(folder)], "the virtual environment could not be made", log, held)
    python = folder / "bin" / "python"
    scratch = folder / "downloads"
    pip = Pip(python, scratch, log, progress, (held,))
    for pin in lock.loose:
        progress.phase(pin)
        _install_loose(pip, pin, progress)
    progress.phase("packages")
    requirements = folder / "requirements.txt"
    requirements.write_text(lock.hashed)
    wanted = sum(1 for line in lock.hashed.splitlines() if "==" in line)
    pip.install(["--require-hashes", "-r", str(requirements)], packages=wanted, download_bytes=expect)
    shutil.rmtree(scratch, ignore_errors=True)
    site = next(folder.glob("lib/python*/site-packages"))
    if start_up := _start_up(flavour):
        (site / "dynctl.pth").write_text(start_up)
    progress.phase("byte code")
    # Some packages carry files for other Pythons, that do not compile: the exit code says nothing.
    run_child(
        [str(python), "-I", "-m", "compileall", "-q", "-q", "-j", "0", "-x", SELDOM, str(site)],
        on_line=lambda _: None,
        on_tick=lambda: progress.update(""),
        keep=(held,),
    )
    return python


def _start_up(flavour: str) -> str:
    return GENTLE if flavour == "cpu" else ""


def _install_loose(pip: Pip, pin: str, progress: Progress) -> None:
    """First from where pip is configured to look, then from PyTorch's index as well."""
    try:
        pip.install([pin], packages=1)
    except NoWheelError:
        progress.say(f"{pin} is not where pip looks; trying {TORCH_CPU_INDEX}")
        pip.install([pin, "--extra-index-url", TORCH_CPU_INDEX], packages=1)


def _check(python: Path, engine: str, flavour: str, progress: Progress, held: int) -> dict[str, str]:
    """Imports what was installed: versions of vllm, torch and nixl, and of Dynamo where it is the engine."""
    progress.phase("check")
    said: list[str] = []
    code = run_child(
        [str(python), "-I", "-c", CHECK.format(cuda=flavour != "cpu", dynamo=engine == "dynamo")],
        on_line=said.append,
        on_tick=lambda: progress.update("importing the engine"),
        keep=(held,),
    )
    if code != 0:
        raise RuntimeFailure(
            "the engine was installed but can't be used here",
            where=str(python),
            why="its import failed",
            tail=said[-6:],
        )
    versions: dict[str, str] = json.loads(said[-1])
    progress.update(", ".join(f"{name} {version}" for name, version in versions.items()))
    return versions


def _run(argv: list[str], cause: str, log: Path, held: int) -> None:
    said: list[str] = []
    if run_child(argv, on_line=said.append, keep=(held,)) != 0:
        raise HostError(cause, where=str(log), why=" ".join(argv), tail=said[-6:])


def _check_room(folder: Path, need_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise HostError(
            f"too little disk space for the engine: about {megabytes(need_bytes)} needed, {megabytes(free)} free",
            where=str(folder),
            fix="free some space, or set XDG_CACHE_HOME to a directory on a larger disk",
        )
