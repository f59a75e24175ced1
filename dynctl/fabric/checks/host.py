"""The node: limits, capabilities, shared memory, IOMMU, ptrace. Pure."""

from __future__ import annotations

from dynctl.fabric.checks.case import Case, Finding, Subject, ok, skip
from dynctl.fabric.checks.values import CAP_IPC_LOCK

LEAST_NOFILE = 65536
LEAST_SHM_BYTES = 1 << 30


def judge_memlock(case: Case, _: Subject) -> Finding:
    """memlock: RDMA pins all memory that it registers."""
    host = case.observed.host
    if host.memlock is None:
        return skip(f"/proc/self/limits can't be read: {host.limits_error or 'no such line'}")
    wanted = "unlimited, or CAP_IPC_LOCK"
    if host.memlock == "unlimited" or host.has_capability(CAP_IPC_LOCK):
        more = " with CAP_IPC_LOCK" if host.has_capability(CAP_IPC_LOCK) else ""
        return ok(f"{host.memlock}{' bytes' * host.memlock.isdecimal()}{more}", wanted)
    if not case.need.rdma and not case.observed.devices:
        return skip("only RDMA registers memory", f"{host.memlock} bytes")
    cause = "registering GPU or host memory with a NIC will fail"
    fix = "`ulimit -l unlimited`; docker: `--ulimit memlock=-1`; systemd: `LimitMEMLOCK=infinity`"
    return Finding(case.grade(), f"{host.memlock} bytes", wanted, cause, fix)


def judge_nofile(case: Case, _: Subject) -> Finding:
    """nofile: NIXL and UCX open descriptors for every peer and queue."""
    host = case.observed.host
    if host.nofile is None:
        return skip(f"/proc/self/limits can't be read: {host.limits_error or 'no such line'}")
    limit = _limit(host.nofile)
    shown = f"{host.nofile} (hard {host.nofile_hard})"
    if limit is None or limit >= LEAST_NOFILE:
        return ok(shown, f">= {LEAST_NOFILE}")
    hard = _limit(host.nofile_hard or "")
    if hard is None or hard >= LEAST_NOFILE:
        return Finding("warn", shown, f">= {LEAST_NOFILE}", "too few open files for many peers", "ulimit -n 1048576")
    fix = "docker: `--ulimit nofile=1048576`; systemd: `LimitNOFILE=1048576`; /etc/security/limits.conf"
    return Finding("warn", shown, f">= {LEAST_NOFILE}", "too few open files, and the hard limit is as low", fix)


def judge_shm(case: Case, _: Subject) -> Finding:
    """shm: engines and UCX share memory through /dev/shm."""
    host = case.observed.host
    if host.shm_bytes is None:
        return skip(f"its size is not known: {host.shm_error}")
    shown = f"{host.shm_bytes / (1 << 30):.2f} GiB"
    if host.shm_bytes >= LEAST_SHM_BYTES:
        return ok(shown, ">= 1 GiB")
    fix = "docker: `--shm-size=16g` or `--ipc=host`; else `mount -o remount,size=16G /dev/shm`"
    return Finding("warn", shown, ">= 1 GiB", "too small for engines and UCX", fix)


def judge_ptrace(case: Case, _: Subject) -> Finding:
    """ptrace: whether one process may read another's memory (CMA), which carries KV on one node without GPUs."""
    cma = case.observed.host.cma
    if cma.allowed:
        return ok(cma.reason, "CMA is permitted")
    if case.need.has_gpu and case.need.path in ("nvlink", "rdma"):
        return skip("KV is in GPU memory: CMA is not used", cma.reason)
    fix = (
        "sysctl kernel.yama.ptrace_scope=1; in a container `--cap-add SYS_PTRACE` and a seccomp profile that allows it"
    )
    cause = "one process may not read another's memory, so KV on one node goes over TCP"
    return Finding("fail" if case.need.path == "shm" else "warn", cma.reason, "CMA is permitted", cause, fix)


def judge_iommu(case: Case, _: Subject) -> Finding:
    """iommu: translated DMA costs bandwidth and blocks peer-to-peer."""
    observed = case.observed
    used = {device.pci for device in observed.devices if case.need.uses(device.name)} | set(observed.gpus)
    functions = {address: observed.pci[address] for address in sorted(used) if address in observed.pci}
    if not functions:
        return skip("no NIC and no GPU")
    kinds = {address: function.iommu.text for address, function in functions.items() if function.iommu.text}
    errors = {f.iommu.error for f in functions.values() if f.iommu.error}
    if not kinds:
        return skip(f"its type can't be read: {', '.join(sorted(errors))}") if errors else ok("off", "off or identity")
    bad = {address: kind for address, kind in kinds.items() if kind in ("DMA", "DMA-FQ")}
    if not bad:
        return ok(", ".join(sorted(set(kinds.values()))), "off or identity")
    if observed.host.virtual_machine:
        return skip("a virtual machine: the hypervisor decides", ", ".join(sorted(set(bad.values()))))
    where = ", ".join(f"{address} {kind}" for address, kind in list(bad.items())[:4])
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    cause = "DMA of NICs and GPUs is translated: slower, and no direct path between them"
    return Finding("warn", where + more, "off or identity", cause, "kernel command line: iommu=pt")


def _limit(text: str) -> int | None:
    """A limit as a number; None: unlimited, or not a number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
