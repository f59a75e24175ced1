"""UCX settings of the workers, held against the devices that are here. Pure."""

from __future__ import annotations

import re

from dynctl.fabric.checks.case import Case, Finding, Subject, because, ok, skip
from dynctl.fabric.report import CheckStatus
from dynctl.fabric.verdict import tls_classes
from dynctl.plan.values import CLASS_ORDER

CUDA_NAMES = frozenset({"cuda", "cuda_copy", "all"})


def judge_tls(case: Case, subject: Subject) -> Finding:
    """tls: UCX_TLS leaves a way for GPU memory, and none that is slower than what is required."""
    worker = subject.worker
    if worker is None:
        return skip("no worker")
    text = worker.env.get("UCX_TLS", "").strip()
    if not text:
        return ok("unset: UCX chooses", "unset, or rc,cuda")
    need, shown = case.need, f"UCX_TLS={text}"
    fail: CheckStatus = "warn" if need.path == "tcp" else "fail"
    classes = tls_classes(text)
    names = {name.strip().lstrip("\\") for name in text.removeprefix("^").split(",")}
    excludes = text.startswith("^")
    no_cuda = bool(names & CUDA_NAMES) if excludes else not names & CUDA_NAMES
    if need.has_gpu and no_cuda:
        cause = "without cuda_copy UCX can't touch GPU memory"
        return Finding("fail", shown, "cuda among them", cause, "UCX_TLS=rc,cuda in transport.env, or remove it")
    if classes == {"tcp"}:
        cause = "only tcp is left"
        return Finding(fail, shown, need.path, cause, "remove UCX_TLS from transport.env; for RDMA: rc,cuda")
    has_rdma = any(port.active for device in case.observed.devices for port in device.ports)
    if classes == {"rdma"} and not has_rdma:
        if case.observed.nics or case.observed.devices:
            return because("state" if case.observed.devices else "dev")
        cause = "it names RDMA transports only, and no RDMA port is here: UCX will not start"
        return Finding("fail", shown, "transports that this node has", cause, "remove UCX_TLS from transport.env")
    if not excludes and "tcp" in classes and "rdma" in classes:
        cause = "falls back to tcp without a word when RDMA is not available"
        return Finding("warn", shown, "rc,cuda", cause, "leave tcp out, or set `transport: {require: rdma}` to be told")
    if need.path in CLASS_ORDER and not any(CLASS_ORDER.index(one) <= CLASS_ORDER.index(need.path) for one in classes):
        cause = f"it leaves nothing as fast as {need.path}"
        return Finding(fail, shown, need.path, cause, "remove UCX_TLS from transport.env")
    return ok(shown, need.path)


def judge_netdev(case: Case, subject: Subject) -> Finding:
    """netdev: UCX_NET_DEVICES names what is here, HCAs with their port."""
    worker = subject.worker
    if worker is None:
        return skip("no worker")
    text = worker.env.get("UCX_NET_DEVICES", "").strip()
    if not text or text == "all":
        return ok(f"{text or 'unset'}: UCX chooses", "mlx5_0:1,...")
    names = [name.strip() for name in text.removeprefix("^").split(",") if name.strip()]
    shown, devices = f"UCX_NET_DEVICES={text}", case.observed.devices
    hcas = {device.name: {f"{device.name}:{port.number}" for port in device.ports} for device in devices}
    ports, wanted = {port for found in hcas.values() for port in found}, "devices that are here, HCAs as mlx5_0:1"
    bare = [name for name in names if name in hcas]
    unknown = [name for name in names if not any(_matches(name, known) for known in (*ports, *hcas, *_netdevs(case)))]
    if unknown:
        cause = f"{', '.join(unknown)}: no such device, so UCX leaves it out or does not start"
        return Finding("fail", shown, wanted, cause, f"one of: {', '.join(sorted((*ports, *_netdevs(case)))[:12])}")
    if bare:
        fixed = ",".join(f"{name}:1" if name in hcas else name for name in names)
        cause = f"{', '.join(bare)}: an HCA needs its port"
        return Finding("fail", shown, wanted, cause, f"UCX_NET_DEVICES={fixed}")
    if text.startswith("^"):
        return ok(shown, wanted)
    ethernet = [name for name in names if name in _netdevs(case) and name != "lo"]
    emulation_off = worker.env.get("UCX_PROTO_EMULATION_ENABLE", "").lower() in ("n", "no", "off", "0")
    if ethernet and any(name in ports for name in names) and emulation_off:
        return ok(f"{shown}, {', '.join(ethernet)} for control messages only: emulation is off", wanted)
    if ethernet and any(name in ports for name in names):
        cause = f"RDMA and network interfaces ({', '.join(ethernet)}) are mixed: UCX may take either"
        return Finding("warn", shown, wanted, cause, "name RDMA devices only; the order means nothing")
    return ok(shown, wanted)


def _netdevs(case: Case) -> tuple[str, ...]:
    return case.observed.netdevs


def _matches(pattern: str, name: str) -> bool:
    """UCX takes `*` and `?` in device names."""
    if len(pattern) > 64:
        return False
    expression = re.escape(pattern).replace(r"\*", "[^,]*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None
