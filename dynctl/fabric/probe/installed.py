"""Every UCX of this host besides NIXL's: the system's, and packages in the engine's interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
from collections.abc import Mapping

from dynctl.fabric.report import UcxLibrary

ASK_S = 5.0
VERSION = """
import ctypes, sys
call = ctypes.CDLL(sys.argv[1]).ucp_get_version_string
call.restype = ctypes.c_char_p
print(call().decode())
"""


async def system() -> tuple[UcxLibrary, ...]:
    """The UCX that the dynamic linker or PATH finds; empty where there is none."""
    info, library = shutil.which("ucx_info"), await _linked()
    if info:
        version, resources = await asyncio.gather(_output(info, "-v"), _output(info, "-d"))
        number = re.search(r"(?:Library )?[Vv]ersion:? (\d+(?:\.\d+)+)", version)
        return (
            UcxLibrary(
                source="the system's UCX",
                version=number[1] if number else None,
                path=library or info,
                transports=_named(resources, "Transport"),
                devices=_named(resources, "Device"),
            ),
        )
    if library:
        # never loaded into dynctl itself
        version = (await _output(sys.executable, "-c", VERSION, library)).strip()
        return (UcxLibrary(source="the system's UCX", version=version or None, path=library),)
    return ()


def packages(python: str, found: Mapping[str, str]) -> tuple[UcxLibrary, ...]:
    """UCX packages of the engine's interpreter, by their distributions. Their version is UCX's for libucx alone."""
    return tuple(
        UcxLibrary(source=f"{name} {version} in {python}", version=version if name.startswith("libucx") else None)
        for name, version in found.items()
    )


async def _linked() -> str | None:
    ldconfig = shutil.which("ldconfig") or shutil.which("/sbin/ldconfig")
    text = await _output(ldconfig, "-p") if ldconfig else ""
    found = re.search(r"^\s*libucp\.so\S* .*=> (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


async def _output(*argv: str) -> str:
    process = None
    with contextlib.suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(ASK_S):
            out, _ = await process.communicate()
        return out.decode(errors="replace")
    if process and process.returncode is None:
        process.kill()
        await process.wait()
    return ""


def _named(text: str, what: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(rf"{what}: (\S+)", text)))
