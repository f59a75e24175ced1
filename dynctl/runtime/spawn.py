"""Executes a ProcessSpec: a session of its own, output appended to a file, its cores, and a cleaned environment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dynctl.engines.spec import SOCKETS, ProcessSpec
from dynctl.environ import PROCESS_VARIABLE, RUN_DIR_VARIABLE, RUN_ID_VARIABLE, engine_environment
from dynctl.errors import HostError
from dynctl.hardware.values import parse_cpu_list
from dynctl.runtime import cgroups, ipc, shared_memory, spawned


def environment(spec: ProcessSpec, run_id: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The process's whole environment: what is inherited less what steers the KV path, the plan's, and the run's id."""
    mine = {RUN_ID_VARIABLE: run_id, PROCESS_VARIABLE: spec.id}
    return {**engine_environment(spec.env, inherited), **mine}


def spawn(
    spec: ProcessSpec, run_id: str, log: Path, directory: Path, *, epoch: str | None = None
) -> subprocess.Popen[bytes]:
    """Starts it, and notes that. HostError when it can't be executed. Called from the main thread only."""
    before = os.sched_getaffinity(0)
    if spec.cpus and not before.issuperset(parse_cpu_list(spec.cpus)):
        raise HostError(f"this process may not use the cores {spec.cpus}", where=f"process {spec.id}")
    chosen = spec.sockets_variable in spec.env
    sockets = {} if chosen else ipc.variables(spec.sockets_variable, run_id)
    descriptor, shared = _open_log(log), shared_memory.present()
    try:
        if spec.cpus:
            os.sched_setaffinity(0, parse_cpu_list(spec.cpus))
        popen = subprocess.Popen(
            _with_sockets(spec, {**sockets, **spec.env}),
            env={**environment(spec, run_id, os.environ), RUN_DIR_VARIABLE: str(directory), **sockets},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            restore_signals=True,
        )
        group = cgroups.join(run_id, spec.id, popen.pid)
        spawned.note(directory, run_id, spec.id, popen.pid, group, epoch=epoch, shared=shared)
        return popen
    except OSError as error:
        raise HostError(f"can't execute {spec.argv[0]}: {error.strerror}", where=f"process {spec.id}") from error
    finally:
        os.close(descriptor)
        os.sched_setaffinity(0, before)


def _with_sockets(spec: ProcessSpec, known: Mapping[str, str]) -> tuple[str, ...]:
    """The argv with the run's directory for unix sockets in it, where it needs one."""
    if not any(SOCKETS in word for word in spec.argv):
        return spec.argv
    directory = known.get(spec.sockets_variable or "")
    if directory is None:
        raise HostError("there is no place for unix sockets", where=f"process {spec.id}", why="a path is too long")
    return tuple(word.replace(SOCKETS, directory) for word in spec.argv)


def _open_log(log: Path) -> int:
    """The file to append to. On a disk that is full, or gone, the process starts without a log rather than not."""
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def exit_text(returncode: int | None) -> str:
    """An exit status in words: `exit code 1`, `killed by SIGKILL`."""
    if returncode is None:
        return "exit status unknown"
    if returncode < 0:
        try:
            return f"killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"killed by signal {-returncode}"
    return f"exit code {returncode}"
