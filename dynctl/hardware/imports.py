"""Reads another machine from a file: a snapshot, the text of `nvidia-smi topo -m`, or an NCCL topology XML."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import BinaryIO

from dynctl.errors import UsageError
from dynctl.hardware import matrix, nccl_xml, snapshot
from dynctl.hardware.values import Hardware

MAX_BYTES = 64 << 20
FORMATS = "a snapshot (`dynctl hardware --json`), the text of `nvidia-smi topo -m`, or an NCCL topology XML"


def load(path: Path) -> Hardware:
    """The machine in that file, `-` for standard input. UsageError for what is no description of a machine."""
    source = "standard input" if str(path) == "-" else str(path)
    return parse(_read(path, source), source)


def parse(data: bytes, source: str) -> Hardware:
    """The machine in these bytes, whose first character tells the format; `source` is how errors call them."""
    body = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body:
        raise UsageError(f"{source} is empty", where=source, fix=f"give {FORMATS}")
    if body.startswith(b"{"):
        return snapshot.parse(body, source)
    if body.startswith(b"<"):
        # whole, less the mark: what is stripped would move the lines of errors
        return nccl_xml.parse(data.removeprefix(b"\xef\xbb\xbf"), source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{source} is not text in UTF-8", where=source, why=str(error), fix=f"give {FORMATS}"
        ) from error
    return matrix.parse(text, source)


def _read(path: Path, source: str) -> bytes:
    try:
        if str(path) == "-":
            return _bounded(sys.stdin.buffer, source)
        with path.open("rb") as file:
            if stat.S_ISDIR(path.stat().st_mode):
                raise IsADirectoryError(21, "it is a directory")
            return _bounded(file, source)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"can't read {source}", where="--hardware", why=why, fix=f"give {FORMATS}") from error


def _bounded(file: BinaryIO, source: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{source} is larger than {MAX_BYTES >> 20} MiB", where="--hardware", why="no node's is")
    return data
