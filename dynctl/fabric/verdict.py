"""From what UCX says it uses to a verdict: which class of path the KV takes, whether that is enough, and why not.

The class comes from the lanes in a protocol table's Config column, never from its Description alone and never from an
endpoint's lane line: a TCP write calls itself zero-copy, a CMA read goes by on an endpoint whose lane line says
`rma_am(tcp/lo)`. Emulation counts by the lane that carries it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from dynctl.fabric.ucx_log import ProtoTable, Row, UcxReader, UcxSaid
from dynctl.plan.values import CLASS_ORDER, TransportClass
from dynctl.telemetry.status import Evidence, Verdict

CLASS_OF: dict[str, TransportClass] = {
    # Between GPUs of one node. cuda_ipc between GPUs without NVLink runs over PCIe: the name can't tell, the rate can.
    "cuda_ipc": "nvlink",
    "rocm_ipc": "nvlink",
    "ze_ipc": "nvlink",
    # Verbs and what is made like it.
    "rc": "rdma",
    "rc_verbs": "rdma",
    "rc_mlx5": "rdma",
    "rc_gda": "rdma",
    "dc": "rdma",
    "dc_mlx5": "rdma",
    "ud": "rdma",
    "ud_verbs": "rdma",
    "ud_mlx5": "rdma",
    "srd": "rdma",
    "gga_mlx5": "rdma",
    # Host memory of one node, and copies between a GPU and its own host.
    "cma": "shm",
    "knem": "shm",
    "xpmem": "shm",
    "posix": "shm",
    "sysv": "shm",
    "self": "shm",
    "cuda_copy": "shm",
    "gdr_copy": "shm",
    "rocm_copy": "shm",
    "ze_copy": "shm",
    "tcp": "tcp",
}
"""Class of every transport UCX names; one it does not list gives `unknown`."""

BADNESS: tuple[Verdict, ...] = ("nvlink", "rdma", "shm", "mixed", "tcp", "unknown")
"""Best first. `mixed` is as bad as its slowest part, which may be tcp but is not tcp alone: between shm and tcp."""

_ALIASES: dict[str, frozenset[TransportClass]] = {
    "all": frozenset(CLASS_ORDER),
    "ib": frozenset({"rdma"}),
    "rc_x": frozenset({"rdma"}),
    "rc_v": frozenset({"rdma"}),
    "dc_x": frozenset({"rdma"}),
    "ud_x": frozenset({"rdma"}),
    "ud_v": frozenset({"rdma"}),
    "sm": frozenset({"shm"}),
    "shm": frozenset({"shm"}),
    "mm": frozenset({"shm"}),
    "cuda": frozenset({"nvlink"}),
    "rocm": frozenset({"nvlink"}),
    "ze": frozenset({"nvlink"}),
}
_FIXES: dict[str, str] = {
    "no-transport-of-that-name": "UCX_TLS in transport.env names a transport this host lacks: correct or remove it",
    "no-device-of-that-name": "UCX_NET_DEVICES names a device this host lacks (RDMA: mlx5_0:1): correct or remove it",
    "no-usable": "remove UCX_TLS and UCX_NET_DEVICES from transport.env, or name what this host has",
    "no-am": "control messages need a transport too: add tcp to UCX_TLS, and lo or a NIC to UCX_NET_DEVICES",
    "no-zero-copy": "UCX_PROTO_EMULATION_ENABLE=n refuses TCP, and nothing else is left: remove it, or mend the path",
    "cma": "let one process read another's memory: same pid namespace and user; in a container add SYS_PTRACE",
}
"""What to do about each kind of complaint."""
_COPIES = frozenset({"self", "cuda_copy", "gdr_copy", "rocm_copy", "ze_copy"})


def lane_class(lane: str) -> TransportClass | None:
    """Class of a lane such as `rc_mlx5/mlx5_0:1`; None for a transport not known."""
    return CLASS_OF.get(lane.split("/", 1)[0])


def row_verdict(row: Row) -> Verdict:
    """Class of all lanes of one row; `mixed` where they differ, `unknown` where one is not known or none is named."""
    classes = {lane_class(lane) for lane in row.lanes}
    if not classes or None in classes:
        return "unknown"
    if len(classes) > 1:
        return "mixed"
    return next(iter(c for c in classes if c))


def verdict(
    tables: Iterable[ProtoTable], *, direction: Literal["pull", "push"], transfer_bytes: int | None = None
) -> tuple[Verdict, tuple[Evidence, ...]]:
    """The worst class that carries KV by these tables, and the rows that say so.

    Pull is a get, found in the decode worker's log; push is a put, found in the prefill worker's. `transfer_bytes` is
    the size of one descriptor and picks the row; None: the largest range. Endpoints to oneself are left out, and so are
    tables that are not of a transfer (`_of_transfers`). UCX prints a table once per endpoint configuration: pairs that
    share a configuration share a table. No table, or one that lacks the row: unknown.
    """
    verdicts: list[Verdict] = []
    evidence: dict[Evidence, None] = {}
    for table in _of_transfers(tables, "get" if direction == "pull" else "put"):
        row = _pick(table.rows, transfer_bytes)
        verdicts.append(row_verdict(row) if row else "unknown")
        evidence[_evidence(table, row)] = None
    return worst(verdicts), tuple(evidence)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a run from those of its pairs, by BADNESS; unknown if there are none."""
    return max(verdicts, key=BADNESS.index, default="unknown")


def meets(reached: Verdict, floor: TransportClass) -> bool:
    """Whether a verdict is at least the floor. `mixed` meets tcp only, `unknown` meets nothing."""
    if reached == "unknown":
        return False
    if reached == "mixed":
        return floor == "tcp"
    return CLASS_ORDER.index(reached) <= CLASS_ORDER.index(floor)


def explain(
    reached: Verdict, reader: UcxReader | UcxSaid, required: TransportClass
) -> tuple[tuple[str, ...], str | None]:
    """Why a path is slower than `required`, likeliest cause first, and what to do: for a TransportError."""
    findings = [*_forced(reader, required), *_complaints(reader)]
    if required != "tcp" and any(error.kind == "no-zero-copy" for error in reader.errors):
        # refused on dynctl's own behalf: what matters is why nothing faster was there
        findings = [(why, None if fix == _FIXES["no-zero-copy"] else fix) for why, fix in findings]
        findings += [] if _forced(reader, required) else [_likely("tcp", reader, required)]
    if reached == "unknown" and not findings:
        findings.append(_silent(reader))
    if not findings:
        findings.append(_likely(reached, reader, required))
    seen = dict.fromkeys(why for why, _ in findings)
    return tuple(seen), next((fix for _, fix in findings if fix), None)


Finding = tuple[str, str | None]


def _of_transfers(tables: Iterable[ProtoTable], operation: Literal["get", "put"]) -> list[ProtoTable]:
    """The tables of KV transfers: to another process, and of device memory where any of them is.

    Every endpoint prints a single put between host buffers when it is made, though nothing is written by it: only
    `(multi)` puts are transfers. Tables with use counts outweigh plans.
    """
    found = [t for t in tables if t.endpoint != "self" and t.operation == operation]
    if operation == "put" or any(t.multi for t in found):
        found = [t for t in found if t.multi]
    if any(not _in_host(t) for t in found):
        found = [t for t in found if not _in_host(t)]
    used = [t for t in found if any(row.count for row in t.rows)]
    return used or found


def _in_host(table: ProtoTable) -> bool:
    return table.memory_local.startswith("host") and table.memory_remote.startswith("host")


def _pick(rows: Sequence[Row], transfer_bytes: int | None) -> Row | None:
    """The row for that size; among rows with counts only those in use count."""
    used = [row for row in rows if row.count] or list(rows)
    if transfer_bytes is None:
        return max(used, key=lambda row: float("inf") if row.hi_bytes is None else row.hi_bytes, default=None)
    for row in used:
        if row.lo_bytes <= transfer_bytes and (row.hi_bytes is None or transfer_bytes <= row.hi_bytes):
            return row
    return None


def _evidence(table: ProtoTable, row: Row | None) -> Evidence:
    where = f"{table.endpoint} cfg#{table.cfg} | {table.title}"
    if row is None:
        return Evidence(kind="planned", source=table.source, line=f"{where} | no row for this size")
    uses = f" | {row.count} uses" if row.count else ""
    line = f"{where} | {row.range_text} | {row.description} | {row.config}{uses}"
    return Evidence(kind="used" if row.count else "planned", source=table.source, line=line)


def _complaints(reader: UcxReader | UcxSaid) -> list[Finding]:
    """What UCX itself complains of, with the fix for each kind."""
    return [
        (f"UCX: {error.message.split('. Please')[0]}", _FIXES.get(error.kind))
        for error in reader.errors
        if error.kind != "other" or error.level in ("error", "fatal")
    ][:6]


def _forced(reader: UcxReader | UcxSaid, required: TransportClass) -> list[Finding]:
    """Settings that UCX says it was started with and that leave no path as fast as required."""
    text = reader.env.get("UCX_TLS")
    if text is None:
        return []
    allowed = tls_classes(text)
    if any(CLASS_ORDER.index(c) <= CLASS_ORDER.index(required) for c in allowed):
        return []
    best = next((c for c in CLASS_ORDER if c in allowed), None)
    words = f"nothing faster than {best}" if best else "no transport that carries KV"
    fix = f"remove UCX_TLS from transport.env and from the environment, or set transport.require: {best or 'auto'}"
    return [(f"UCX_TLS={text} allows {words}", fix)]


def tls_classes(text: str) -> frozenset[TransportClass]:
    """Classes that a UCX_TLS value leaves: comma-separated names and aliases, `^` first turns it into an exclusion.

    An excluded name takes its class away only if it is the alias of the whole class, or tcp.
    """
    text = text.strip()
    exclude = text.startswith("^")
    names = [name.strip().lstrip("\\") for name in text.removeprefix("^").split(",")]
    whole: frozenset[TransportClass] = frozenset()
    for name in names:
        if exclude and name not in ("all", "ib", "sm", "shm", "cuda", "cuda_ipc", "tcp"):
            continue
        one = CLASS_OF.get(name) if name not in _COPIES else None
        whole |= _ALIASES.get(name) or (frozenset({one}) if one else frozenset())
    return frozenset(CLASS_ORDER) - whole if exclude else whole


def _silent(reader: UcxReader | UcxSaid) -> Finding:
    if reader.version is None:
        why = "UCX wrote nothing: NIXL was not loaded, or UCX_LOG_LEVEL or UCX_LOG_FILE was changed"
        return why, "leave UCX_LOG_LEVEL, UCX_LOG_FILE and UCX_PROTO_INFO to dynctl"
    why = f"UCX {reader.version} named no protocol for a KV transfer between two workers"
    return why, "leave UCX_PROTO_INFO and UCX_LOG_LEVEL to dynctl; a UCX older than 1.18 may not print them"


def _likely(reached: Verdict, reader: UcxReader | UcxSaid, required: TransportClass) -> Finding:
    """The likeliest cause where UCX complains of nothing: the faster class was not there to be chosen."""
    lower = reached if reached in get_args(TransportClass) else "auto"
    offered = {lane_class(lane) for line in reader.lanes for lanes in line.lanes.values() for lane in lanes}
    if required == "nvlink":
        return (
            "UCX moves this KV without cuda_ipc: the GPUs have no NVLink peer access, or don't see each other",
            f"check `nvidia-smi topo -m`; without NVLink use transport.direction: push, or transport.require: {lower}",
        )
    if required == "rdma" and "rdma" not in offered:
        return (
            "UCX found no RDMA device: none of its endpoints has an RDMA lane",
            f"see /sys/class/infiniband: a port must be ACTIVE; without such a NIC set transport.require: {lower}",
        )
    if required == "rdma":
        return (
            "UCX has RDMA lanes but does not use them for the KV's kind of memory",
            "for GPU memory load nvidia_peermem, or use a driver with dma-buf; check UCX_IB_GPU_DIRECT_RDMA",
        )
    if any(line.endpoint == "inter-node" for line in reader.lanes):
        return (
            "UCX counts the two workers as being on different nodes: another host, or another pid namespace",
            f"run both in one pid namespace, or set transport.require: {lower}",
        )
    return (
        "UCX does not use CMA: the kernel refuses that one process reads another's memory",
        "set kernel.yama.ptrace_scope to 0 or 1; in a container allow process_vm_readv (--cap-add SYS_PTRACE);"
        f" or set transport.require: {lower}",
    )
