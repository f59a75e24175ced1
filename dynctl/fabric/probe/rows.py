"""Rows on the UCX that NIXL loads: `ucx`, `ucxver`, `tls`, `netdev`, `ucxother`, from what the probe found. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from dynctl.fabric.probe.judge import FIXES, Failure
from dynctl.fabric.report import Check, UcxLibrary
from dynctl.fabric.ucx_log import UcxReader
from dynctl.fabric.verdict import lane_class, meets, tls_classes
from dynctl.plan.values import TransportClass
from dynctl.telemetry.status import Verdict

OLDEST = (1, 19)
"""Since then UCX finds its way over several RoCE networks, and NIXL is made for it."""
NOT_ONE = ("no-python", "no-nixl", "not-nixl", "no-ucx", "crash", "deadline")
"""Failures after which nothing is known of UCX."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one set of settings gave: the workers that have them, UCX, what it found, and what the transfers came to."""

    targets: tuple[str, ...]
    python: str
    library: UcxLibrary
    env: dict[str, str] = {}
    floors: tuple[TransportClass, ...] = ()
    on_gpu: bool = False
    nics: tuple[str, ...] = ()
    reached: tuple[Verdict, ...] = ()
    failure: Failure | None = None

    @property
    def target(self) -> str:
        """The workers by name."""
        return ", ".join(self.targets)


def rows(found: Found, reader: UcxReader) -> tuple[Check, ...]:
    """The rows of one set of settings. `reader`: all that UCX said under them."""
    if found.failure and found.failure.kind in NOT_ONE and not found.library.version:
        because = [_row(name, found, "skip", cause="because ucx") for name in ("ucxver", "tls", "netdev")]
        fix = FIXES.get(found.failure.kind)
        return _row("ucx", found, "fail", cause=found.failure.text, fix=fix, expected="NIXL with its UCX"), *because
    return _ucx(found), _version(found), _tls(found, reader), _netdev(found, reader)


def others(used: UcxLibrary | None, installed: Sequence[UcxLibrary]) -> tuple[Check, ...]:
    """One `ucxother` row for each UCX beside NIXL's: a warning where its version is another."""
    found = []
    for other in installed:
        differs = bool(used and used.version and other.version and _numbers(other.version) != _numbers(used.version))
        mine = used.version if used else None
        named = ", ".join(other.transports) or "transports not known"
        row = Check(
            id="ucxother",
            target=other.source,
            status="warn" if differs else "pass",
            observed=f"UCX {other.version or 'of unknown version'}: {named}",
            expected=f"UCX {mine}, NIXL's own, or none" if mine else None,
            cause=f"NIXL loads UCX {mine}: what this one can do says nothing of the KV path" if differs else None,
            fix="judge by dynctl's rows, not by its ucx_info; don't put it on LD_LIBRARY_PATH" if differs else None,
        )
        found.append(row)
    if not installed:
        found.append(Check(id="ucxother", target="this host", status="pass", observed="no other UCX found"))
    return tuple(found)


def _ucx(found: Found) -> Check:
    library = found.library
    names = library.transports
    what = f"{', '.join(names)} over {', '.join(library.devices) or 'memory'}" if names else "nothing usable"
    observed = f"UCX {library.version or '?'} at {library.path or '?'}: {what}"
    fast = any(lane_class(name) == "rdma" for name in library.transports)
    if not names:
        cause = "UCX finds no usable transport with these settings"
        return _row("ucx", found, "fail", observed, cause=cause, fix="see the rows tls and netdev")
    if "rdma" in found.floors and not fast:
        cause = "UCX finds no RDMA device: it has no network resource but tcp"
        fix = "a port must be ACTIVE, /dev/infiniband/uverbs* must be in the container; see the rows of the NICs"
        return _row("ucx", found, "fail", observed, expected="an RDMA transport (rc_mlx5, ...)", cause=cause, fix=fix)
    return _row("ucx", found, "pass", observed)


def _version(found: Found) -> Check:
    version = found.library.version
    if not version:
        return _row("ucxver", found, "warn", cause="the library does not say its version")
    old = _numbers(version)[:2] < OLDEST
    expected = f"{OLDEST[0]}.{OLDEST[1]} or newer"
    cause = "older UCX takes the wrong NIC or GID on hosts with several networks" if old else None
    fix = "install a newer nixl-cu12 or nixl-cu13: it brings its UCX" if old else None
    return _row("ucxver", found, "warn" if old else "pass", f"UCX {version}", expected=expected, cause=cause, fix=fix)


def _tls(found: Found, reader: UcxReader) -> Check:
    text = reader.env.get("UCX_TLS", found.env.get("UCX_TLS"))
    if not text:
        return _row("tls", found, "pass", "not set: UCX chooses")
    observed = f"UCX_TLS={text}"
    lacking = list(dict.fromkeys(e.subject for e in reader.errors if e.kind == "no-transport-of-that-name"))
    refused = any(e.kind in ("no-usable", "no-am") for e in reader.errors)
    allowed = tls_classes(text)
    below = bool(found.floors) and not any(meets(c, floor) for c in allowed for floor in found.floors)
    slower = any(not meets(verdict, floor) for verdict in found.reached for floor in found.floors)
    fix = "remove UCX_TLS from transport.env, or name what this host has"
    if lacking:
        no_device = ": UCX finds no RDMA device" if tls_classes(",".join(lacking)) == {"rdma"} else ""
        told = f"told to use {', '.join(lacking)}, which this host lacks{no_device}"
        if refused or not found.reached:
            return _row("tls", found, "fail", observed, cause=told, fix=fix)
        fell = f"{told}; it fell back to {', '.join(dict.fromkeys(found.reached))} without an error"
        return _row("tls", found, "fail" if slower else "warn", observed, cause=fell, fix=fix)
    if found.on_gpu and not _allows_cuda(text):
        cause = "without cuda_copy and cuda_ipc UCX can't move GPU memory"
        return _row("tls", found, "fail", observed, expected="rc,cuda", cause=cause, fix="add cuda to UCX_TLS")
    if refused:
        return _row("tls", found, "fail", observed, cause="UCX finds nothing usable among these", fix=fix)
    if allowed == {"tcp"} or below:
        cause = f"it allows nothing faster than {next(iter(sorted(allowed)), 'nothing')}"
        return _row("tls", found, "fail" if below else "warn", observed, cause=cause, fix=fix)
    return _row("tls", found, "pass", observed)


def _netdev(found: Found, reader: UcxReader) -> Check:
    text = reader.env.get("UCX_NET_DEVICES", found.env.get("UCX_NET_DEVICES"))
    if not text:
        return _row("netdev", found, "pass", "not set: all devices")
    observed = f"UCX_NET_DEVICES={text}"
    names = [name.strip() for name in text.split(",")]
    unknown = [e for e in reader.errors if e.kind == "no-device-of-that-name"]
    if unknown:
        cause = f"UCX: {unknown[0].message.split('. Please')[0]}"
        fix = "name devices that exist (RDMA: mlx5_0:1; see the row ucx), or remove UCX_NET_DEVICES"
        return _row("netdev", found, "fail", observed, cause=cause, fix=fix)
    bare = [name for name in names if name in found.nics]
    if bare:
        cause = f"{bare[0]} names an RDMA device without its port"
        return _row("netdev", found, "fail", observed, cause=cause, fix=f"write {bare[0]}:1")
    rdma = [name for name in names if name.partition(":")[0] in found.nics]
    if rdma and set(names) - set(rdma) - {"lo"}:
        cause = "RDMA devices and network interfaces are mixed: UCX may stripe over both"
        return _row("netdev", found, "warn", observed, cause=cause, fix="name the RDMA devices, and lo for messages")
    return _row("netdev", found, "pass", observed)


def _row(
    name: str,
    found: Found,
    status: Literal["pass", "warn", "fail", "skip"],
    observed: str | None = None,
    *,
    expected: str | None = None,
    cause: str | None = None,
    fix: str | None = None,
) -> Check:
    return Check(
        id=name, target=found.target, status=status, observed=observed, expected=expected, cause=cause, fix=fix
    )


def _allows_cuda(text: str) -> bool:
    names = {name.strip() for name in text.removeprefix("^").split(",")}
    named = bool(names & {"all", "cuda", "cuda_copy", "gdr_copy", "rocm", "ze"})
    return not named if text.startswith("^") else named


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
