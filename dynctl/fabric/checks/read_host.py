"""The node beside its devices: limits, capabilities, namespaces, shared memory, GPU driver, CMA."""

from __future__ import annotations

import re
from pathlib import Path

from dynctl.fabric.checks.tree import can_open, link, read
from dynctl.fabric.checks.values import Host, Reading
from dynctl.hardware.cma import cma

PEERMEM = (
    "sys/module/nvidia_peermem/version",
    "sys/module/nv_peer_mem/version",
    "sys/kernel/mm/memory_peers/nv_mem/version",
)
CONTAINER_FILES = {".dockerenv": "docker", "run/.containerenv": "podman"}
SHM = "/dev/shm"  # noqa: S108 - the name of the mount
LIMIT = re.compile(r"^(Max [a-z ]+?)\s{2,}(\S+)\s+(\S+)", re.MULTILINE)


def read_host(root: Path) -> Host:
    """Everything of `Host`, below `root`."""
    status = _fields(read(root / "proc/self/status"))
    limits = read(root / "proc/self/limits")
    rows = {name: (soft, hard) for name, soft, hard in LIMIT.findall(limits.text or "")}
    nofile = rows.get("Max open files")
    shm_bytes, shm_error = _shm(root)
    processor = _fields(read(root / "proc/cpuinfo"))
    return Host(
        kernel=read(root / "proc/sys/kernel/osrelease"),
        limits_error=limits.error,
        memlock=rows["Max locked memory"][0] if "Max locked memory" in rows else None,
        nofile=nofile[0] if nofile else None,
        nofile_hard=nofile[1] if nofile else None,
        capabilities=_hexadecimal(status.get("CapEff")),
        seccomp=status.get("Seccomp"),
        shm_bytes=shm_bytes,
        shm_error=shm_error,
        netns=link(root / "proc/self/ns/net"),
        init_netns=link(root / "proc/1/ns/net"),
        container=next((kind for name, kind in CONTAINER_FILES.items() if _exists(root / name)), None),
        virtual_machine=" hypervisor " in f" {processor.get('flags', '')} ",
        cpu=processor.get("model name"),
        nvidia=_nvidia(root),
        peermem=next((name for name in PEERMEM if _exists(root / name)), None),
        gdrdrv=can_open(root / "dev/gdrdrv"),
        cma=cma(root),
    )


def _shm(root: Path) -> tuple[int | None, str | None]:
    """Bytes of /dev/shm by the mount's own `size`, else half of the memory, which is tmpfs's default."""
    mounts = read(root / "proc/self/mounts")
    lines = [line.split() for line in (mounts.text or "").splitlines()]
    options = next((line[3] for line in reversed(lines) if len(line) > 3 and line[1] == SHM), None)
    if options is None:
        return None, mounts.error or f"{SHM} is not a mount of its own"
    size = re.search(r"(?:^|,)size=([0-9]{1,15})([kmg]?)(?:,|$)", options)
    if size:
        return int(size[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[size[2]], None
    memory = read(root / "proc/meminfo")
    total = re.search(r"^MemTotal:\s+([0-9]{1,15}) kB", memory.text or "", re.MULTILINE)
    return (int(total[1]) * 1024 // 2, None) if total else (None, memory.error or "no MemTotal in /proc/meminfo")


def _nvidia(root: Path) -> Reading:
    """The driver's version line: it says `Open Kernel Module` where the module is the open one."""
    found = read(root / "proc/driver/nvidia/version")
    return Reading((found.text.splitlines() or [""])[0], None) if found.text is not None else found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _fields(text: Reading) -> dict[str, str]:
    """`Name:\tvalue` lines; the first of each name."""
    found: dict[str, str] = {}
    for line in (text.text or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _hexadecimal(text: str | None) -> int | None:
    try:
        return int(text or "", 16) & 0xFFFF_FFFF_FFFF_FFFF
    except ValueError:
        return None
