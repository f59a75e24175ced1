"""Which dynctl this is: its version, and a digest of its code for those that were changed without a new version."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import dynctl
from dynctl.ssh.words import Here


def here() -> Here:
    """This dynctl, as the others must have it."""
    return Here(
        version=dynctl.__version__, code=code(), command=own_command() or sys.executable, host=os.uname().nodename
    )


def code() -> str:
    """SHA-256 over the package's files, in hexadecimal; empty for a frozen one, which its version tells."""
    if getattr(sys, "frozen", False):
        return ""
    root, digest = Path(dynctl.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def own_command() -> str | None:
    """The absolute path of the `dynctl` command that runs now; None where it is run in another way."""
    if getattr(sys, "frozen", False):
        return sys.executable
    beside = Path(sys.executable).parent / "dynctl"
    if os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == "dynctl" else None
    return str(Path(found).absolute()) if found else None
