"""A snapshot (what `dynctl hardware --json` prints) back into Hardware, checked for what placement relies on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

import msgspec

from dynctl.errors import UsageError
from dynctl.hardware.values import Gpu, Hardware

SCHEMA = 1
FIX = "make it with `dynctl hardware --json` on that machine"
MAX_CORE = 1 << 16
T = TypeVar("T", bound=Hashable)


class _Head(msgspec.Struct):
    """What tells a snapshot from another document."""

    schema: int | None = None
    gpus: msgspec.Raw = msgspec.Raw()
    nics: msgspec.Raw = msgspec.Raw()
    processes: msgspec.Raw = msgspec.Raw()


def parse(data: bytes, source: str) -> Hardware:
    """The machine that a snapshot describes. UsageError for another schema or document, and for contradictions."""
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.schema is None or bytes(head.processes) or not (bytes(head.gpus) or bytes(head.nics)):
            raise UsageError(f"{source} is JSON, but no hardware snapshot", where=source, fix=FIX)
        if head.schema != SCHEMA:
            raise UsageError(
                f"the snapshot has schema {head.schema}; this dynctl reads schema {SCHEMA}",
                where=source,
                fix="use a dynctl of the same version on both machines, or make the snapshot again",
            )
        found = msgspec.json.decode(data, type=Hardware)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is no readable snapshot", where=source, why=str(error), fix=FIX) from error
    _check(found, source)
    return msgspec.structs.replace(found, source="snapshot" if found.source == "discovered" else found.source)


def _check(found: Hardware, source: str) -> None:
    indexes = {gpu.index for gpu in found.gpus}
    names = {nic.name for nic in found.nics}
    uuids = [*(gpu.uuid for gpu in found.gpus), *(part.uuid for gpu in found.gpus for part in gpu.mig)]
    problems = [
        *(f"two GPUs have index {index}" for index in _repeated(gpu.index for gpu in found.gpus)),
        *(f"GPU index {index} is negative" for index in sorted(indexes) if index < 0),
        *(f"two GPUs or MIG slices have UUID {uuid}" for uuid in _repeated(uuids)),
        *(f"GPU {gpu.index} has no UUID" for gpu in found.gpus if not gpu.uuid),
        *(f"two NICs are named {name}" for name in _repeated(nic.name for nic in found.nics)),
        *(f"two NUMA nodes have index {index}" for index in _repeated(node.index for node in found.numa_nodes)),
        *(
            f"{nic.name} has port {port} twice"
            for nic in found.nics
            for port in _repeated(port.number for port in nic.ports)
        ),
        *(problem for gpu in found.gpus for problem in _dangling(gpu, indexes, names)),
    ]
    cores = {*found.cores, *(core for node in found.numa_nodes for core in node.cores)}
    if cores and not 0 <= min(cores) <= max(cores) < MAX_CORE:
        problems.append(f"core numbers must be from 0 to {MAX_CORE - 1}")
    if problems:
        raise UsageError("the snapshot contradicts itself", where=source, why=problems[:5], fix=FIX)


def _dangling(gpu: Gpu, indexes: set[int], names: set[str]) -> Iterable[str]:
    for peers in (gpu.nvlinks, gpu.gpu_distances or {}):
        if not indexes.issuperset(peers):
            yield f"GPU {gpu.index} names a peer GPU {min(set(peers) - indexes)} that is not in the snapshot"
    if not names.issuperset(gpu.nic_distances or ()):
        nic = min(set(gpu.nic_distances or ()) - names)
        yield f"GPU {gpu.index} names a NIC {nic} that is not in the snapshot"
    if gpu.memory_bytes < 0 or gpu.nvswitch_links < 0 or any(width < 0 for width in gpu.nvlinks.values()):
        yield f"GPU {gpu.index} has a negative size or width"


def _repeated(values: Iterable[T]) -> list[T]:
    return [value for value, times in Counter(values).items() if times > 1]
