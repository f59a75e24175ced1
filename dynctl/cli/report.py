"""`dynctl report`: everything that somebody needs who is to help with a run, in one file, without its secrets."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from dynctl.cli import choose
from dynctl.cli.report_parts import parts
from dynctl.cli.runs import current_status
from dynctl.errors import DynctlError, RunStateError, UsageError
from dynctl.plan.scrub import Scrubber, found_secrets, secret_values
from dynctl.replacing import replacing
from dynctl.runtime.recall import live_processes
from dynctl.store.run import RunStore, known_runs

README = """A support bundle of dynctl. Every file is text. Secrets are replaced by ***: those the run has (its token,
API keys, variables named like secrets), and whatever looks like one. Look through it before you pass it on.
"""


def report(name: str | None, output: Path | None) -> int:
    """Writes the bundle and prints its path; what it holds is said on stderr. Of running and ended runs alike."""
    store = _store(name)
    target = output or Path(
        f"dynctl-report-{store.name if store else 'machine'}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    )
    if target.is_dir() or not target.absolute().parent.is_dir():
        why = "it is a directory" if target.is_dir() else f"there is no directory {target.parent}"
        raise UsageError(f"can't write {target}", where="--output", why=why)
    scrubber = Scrubber(_known_secrets(store))
    try:
        with replacing(target, private=True) as file, tarfile.open(fileobj=file, mode="w:gz") as bundle:
            _fill(bundle, target.name.removesuffix(".tar.gz"), store, scrubber)
    except OSError as error:
        raise UsageError(f"can't write {target}", where="--output", why=error.strerror) from error
    print(target)  # noqa: T201 - stdout is data
    return 0


def _store(name: str | None) -> RunStore | None:
    """The run; without any on this machine its own description is worth having."""
    try:
        return choose.run(name)
    except RunStateError:
        if name is not None or known_runs():
            raise
        return None


def _fill(bundle: tarfile.TarFile, folder: str, store: RunStore | None, scrubber: Scrubber) -> None:
    missing: dict[str, str] = {}
    _add(bundle, f"{folder}/README", README, "what this is")
    for name, what, get in parts(store, lambda: current_status(store) if store else None):
        try:
            found = get()
            text = scrubber.text(found) if isinstance(found, str) else _document(found, scrubber)
        except (DynctlError, OSError, ValueError, LookupError, TypeError) as error:
            missing[name] = scrubber.text(f"{type(error).__name__}: {error}")
            print(f"  {name:<28} missing: {missing[name]}", file=sys.stderr)  # noqa: T201
            continue
        _add(bundle, f"{folder}/{name}", text, what)
    _add(bundle, f"{folder}/missing.json", _document(missing, scrubber), "what could not be had, and why")


def _document(found: object, scrubber: Scrubber) -> str:
    plain = scrubber.document(msgspec.to_builtins(found))
    return msgspec.json.format(msgspec.json.encode(plain), indent=1).decode() + "\n"


def _add(bundle: tarfile.TarFile, name: str, text: str, what: str) -> None:
    data = text.encode(errors="replace")
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    bundle.addfile(member, io.BytesIO(data))
    print(f"  {name.partition('/')[2]:<28} {len(data):>10,} bytes  {what}", file=sys.stderr)  # noqa: T201


def _known_secrets(store: RunStore | None) -> set[str]:
    """Every secret that can be known here: of this environment, of the run's files, of its processes."""
    found = set(secret_values(os.environ))
    if store is None:
        return found
    for text in _private_files(store):
        found |= {text.strip(), *(line.strip() for line in text.splitlines())}
        with contextlib.suppress(msgspec.DecodeError):
            found |= set(_texts(msgspec.json.decode(text)))
    for name in ("plan.json", "topology.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found |= set(found_secrets(msgspec.json.decode((store.dir / name).read_bytes())))
    with contextlib.suppress(DynctlError):
        for process in live_processes(store):
            with contextlib.suppress(psutil.Error):
                found |= set(secret_values(process.environ()))
    return {value for value in found if value not in ("{}", "[]", "***")}


def _private_files(store: RunStore) -> Iterator[str]:
    """The run's own secrets, and files that its plan names for keys."""
    paths = [store.dir / "token", store.dir / "secrets.json"]
    with contextlib.suppress(DynctlError):
        for spec in store.plan().processes:
            paths += [Path(value) for flag, value in zip(spec.argv, spec.argv[1:], strict=False) if "key" in flag]
            paths += [Path(v) for k, v in spec.env.items() if k.endswith(("_FILE", "_PATH")) and "TOKEN" in k]
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            if path.is_file() and path.stat().st_size < 1 << 16:
                yield path.read_text(errors="replace")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
