"""The UCX that NIXL loads, asked by ctypes: where it is, its version, the transports and devices it finds.

Beside the agent's script and as standalone as it: the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import sys
import tempfile

FIELD_FEATURES = 1
RMA_AND_MESSAGES = (1 << 1) | (1 << 6)
API = (1, 15)
"""ucp_init_version's: any library that knows these fields or more takes it."""
PARAMETERS_WORDS = 64
"""More than ucp_params_t has ever had; what the field mask leaves out is not read."""


def bundled(module: str) -> str | None:
    """The libucp that the wheel of that module brings."""
    package = os.path.dirname(sys.modules[module].__file__ or "")
    return next(iter(sorted(glob.glob(os.path.join(package + ".libs", "libucp-*.so*")))), None)


def loaded(library: str) -> str | None:
    """The path under which this process has that library mapped."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip().partition("/")[2]
            if os.path.basename(path).startswith(library):
                return "/" + path
    return None


def ucp_version(library: str) -> str | None:
    """What the library says its version is."""
    try:
        call = ctypes.CDLL(library).ucp_get_version_string
    except (OSError, AttributeError):
        return None
    call.restype = ctypes.c_char_p
    return (call() or b"").decode() or None


def as_numbers(version: str) -> tuple[int, ...]:
    """1.23.0 -> (1, 23, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def resources(library: str) -> list[str]:
    """Lines such as `tcp/lo`, `rc_mlx5/mlx5_0:1`, `cma/memory`: what a context made with this environment may use."""
    ucp, libc = ctypes.CDLL(library), ctypes.CDLL(None)
    parameters = (ctypes.c_uint64 * PARAMETERS_WORDS)()
    parameters[0], parameters[1] = FIELD_FEATURES, RMA_AND_MESSAGES
    config, context = ctypes.c_void_p(), ctypes.c_void_p()
    if ucp.ucp_config_read(None, None, ctypes.byref(config)):
        return []
    if ucp.ucp_init_version(*API, ctypes.byref(parameters), config, ctypes.byref(context)):
        return []
    with tempfile.TemporaryFile() as file:
        libc.fdopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
        ucp.ucp_context_print_info(context, stream)
        libc.fclose(stream)
        ucp.ucp_cleanup(context)
        file.seek(0)
        text = file.read().decode(errors="replace")
    return re.findall(r"resource \d+\s*:.* (\S+/\S+)$", text, re.MULTILINE)
