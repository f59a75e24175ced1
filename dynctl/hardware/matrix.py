"""The text of `nvidia-smi topo -m`, as pasted, into Hardware. Pure.

Read tolerantly in what differs between drivers and terminals (tabs or spaces, colours, NIC rows named `NIC0` with a
legend or `mlx5_0` directly, which affinity columns there are, `nvidia-smi -L` output above or below), strictly in what
placement relies on: every row is there, has every cell, and agrees with its column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from dynctl.errors import UsageError
from dynctl.hardware.values import Distance, Gpu, Hardware, MigDevice, Nic, NicPort, NumaNode

FIX = "paste the whole output of `nvidia-smi topo -m`"
ASSUMED = (
    "a topology matrix tells no port state, rate, GPU memory or GPU model: port 1 of every NIC is taken to be ACTIVE, "
    "every GPU to be free"
)
UNNAMED = (
    "the matrix names its NICs NIC0, NIC1, ... without a legend: the plan shows these names where the real ones "
    "(`mlx5_0`) belong"
)
SELF = "X"
CLASSES: dict[str, Distance] = {"PIX": "PIX", "PXB": "PXB", "PHB": "PHB", "NODE": "NODE", "SYS": "SYS", "SOC": "SYS"}
"""SOC is what drivers before 2017 called SYS."""
PORT = NicPort(number=1, state="ACTIVE", phys_state="LinkUp")
MAX_CORE = 1 << 16

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_GPU = re.compile(r"GPU(0|[1-9][0-9]{0,5})")
_DEVICE = re.compile(r"GPU(0|[1-9][0-9]{0,5})|NIC[0-9]{1,6}|MIG\S*|[a-z][a-z0-9]*[0-9_][\w.-]*")
_LINKS = re.compile(r"NV[1-9][0-9]{0,3}")
_GLUED = re.compile(r"NODE|SYS|SOC|PIX|PXB|PHB|X|NV[0-9]+")
_COLUMN = re.compile(r"CPU Affinity|NUMA Affinity|GPU NUMA ID|\S+")
_LEGEND = re.compile(r"\s*(NIC[0-9]{1,6})\s*:\s*([A-Za-z][\w.-]{0,63})\s*")
_CORES = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*,?")
_NODES = re.compile(r"[0-9]{1,5}([-,][0-9]{1,5})*")
_LISTED = re.compile(r"GPU ([0-9]{1,6}): (.{1,200}?) \(UUID: (GPU-[0-9A-Fa-f-]{1,64})\)\s*")
_SLICE = re.compile(r"\s+MIG (\S{1,32})\s+Device\s+([0-9]{1,4}): \(UUID: (MIG-\S{1,128})\)\s*")


_SHARED = {cell: cell for cell in (SELF, *CLASSES, *(f"NV{links}" for links in range(1, 33)))}
"""Cells as one object each: a large matrix has millions."""


class _Row(NamedTuple):
    """A device's row: its cells, one for each device of the header, and what stands behind them. Lines count from 1."""

    line: int
    cells: list[str]
    rest: list[str]


class _Listed(NamedTuple):
    """What `nvidia-smi -L` said of a GPU."""

    name: str
    uuid: str
    mig: list[MigDevice]


def parse(text: str, source: str) -> Hardware:
    """The machine of a matrix. UsageError, with the line, for text that is none and for one that does not add up."""
    lines = [line.rstrip("\r") for line in _ANSI.sub("", text).split("\n")]
    at = next((number for number, line in enumerate(lines) if _is_header(line.split())), None)
    if at is None:
        raise UsageError(
            f"{source} is no topology matrix",
            where=source,
            why="no line names the columns, as `GPU0  GPU1  ...  CPU Affinity` does",
            fix="give the output of `nvidia-smi topo -m`, a snapshot (`dynctl hardware --json`), or an NCCL topology",
        )
    devices, columns = _header(lines[at], f"{source}:{at + 1}")
    rows, end = _rows(lines, at + 1, devices, source)
    _check_agreement(devices, rows, source)
    names, notes = _names(devices, lines[end:], source)
    listed = _listed([*lines[:at], *lines[end:]])
    gpus = _gpus(devices, columns, rows, names, listed, source)
    nodes: dict[int, set[int]] = {}
    for gpu in gpus:
        if gpu.numa is not None:
            nodes.setdefault(gpu.numa, set()).update(gpu.cores)
    return Hardware(
        source="nvidia-smi topo -m",
        gpus=gpus,
        nics=tuple(_nic(name, gpus) for name in names.values()),
        numa_nodes=tuple(NumaNode(index=node, cores=tuple(sorted(cores))) for node, cores in sorted(nodes.items())),
        cores=tuple(sorted({core for gpu in gpus for core in gpu.cores})),
        notes=(ASSUMED, *notes),
    )


def _is_cell(token: str) -> bool:
    return token == SELF or token in CLASSES or _LINKS.fullmatch(token) is not None


def _is_header(tokens: Sequence[str]) -> bool:
    return bool(tokens) and bool(_GPU.fullmatch(tokens[0])) and (len(tokens) == 1 or not _is_cell(tokens[1]))


def _header(line: str, where: str) -> tuple[list[str], list[str]]:
    """The devices that have columns, and the columns behind them."""
    tokens = line.split()
    count = next((at for at, token in enumerate(tokens) if not _DEVICE.fullmatch(token)), len(tokens))
    devices = tokens[:count]
    if twice := next((name for at, name in enumerate(devices) if name in devices[:at]), None):
        raise UsageError(f"the matrix has two columns {twice}", where=where, fix=FIX)
    return devices, _COLUMN.findall(" ".join(tokens[count:]))


def _rows(lines: Sequence[str], start: int, devices: Sequence[str], source: str) -> tuple[dict[str, _Row], int]:
    """The rows by device, and the line behind the last."""
    wanted = set(devices)
    rows: dict[str, _Row] = {}
    for at in range(start, len(lines)):
        name, *tokens = lines[at].split() or [""]
        where = f"{source}:{at + 1}"
        if name in wanted and tokens:
            if name in rows:
                raise UsageError(f"the matrix has two rows {name}", where=where, fix=FIX)
            rows[name] = _row(name, tokens, devices, at + 1, where)
        elif _DEVICE.fullmatch(name) and tokens and _is_cell(tokens[0]) and not name.startswith("MIG"):
            raise UsageError(f"row {name} has no column", where=where, fix=FIX)
        elif name and not name.startswith("MIG"):
            if len(rows) < len(devices):
                continue  # said below which row is missing
            return _complete(rows, devices, source), at
    return _complete(rows, devices, source), len(lines)


def _complete(rows: dict[str, _Row], devices: Sequence[str], source: str) -> dict[str, _Row]:
    missing = [name for name in devices if name not in rows and not name.startswith("MIG")]
    if missing:
        last = max((row.line for row in rows.values()), default=0)
        raise UsageError(
            f"the matrix is cut off: it has a column {missing[0]}, but no such row",
            where=f"{source}:{last}" if last else source,
            why=f"{len(missing)} of {len(devices)} rows are missing",
            fix=FIX,
        )
    return rows


def _row(name: str, tokens: list[str], devices: Sequence[str], line: int, where: str) -> _Row:
    count = len(devices)
    if not all(map(_is_cell, set(tokens[:count]))):
        tokens = _unglued(tokens)
    cells = tokens[:count]
    odd = {cell for cell in set(cells) if not _is_cell(cell)}
    at = next((at for at, cell in enumerate(cells) if cell in odd), 0) if odd else len(cells)
    cut = at >= len(cells) - 1 and len(cells) < count
    if odd and not cut and cells[at] != "N/A" and not _CORES.fullmatch(cells[at]):
        raise UsageError(
            f"row {name} says `{cells[at][:40]}` under {devices[at]}",
            where=where,
            why=f"a cell is one of X, {', '.join(CLASSES)} or NV and a number",
            fix=FIX,
        )
    if at < count:
        raise UsageError(f"row {name} has {at} cells, the header has {count} devices", where=where, fix=FIX)
    rest = tokens[count:]
    if rest and _is_cell(rest[0]):
        raise UsageError(f"row {name} has more cells than the header has devices", where=where, fix=FIX)
    return _Row(line, list(map(_SHARED.get, cells, cells)), rest)


def _unglued(tokens: Sequence[str]) -> list[str]:
    """Cells whose blank was lost where a terminal wrapped (`NODENODE`) apart again."""
    parts: list[str] = []
    for token in tokens:
        found = _GLUED.findall(token)
        parts += found if "".join(found) == token else [token]
    return parts


def _check_agreement(devices: Sequence[str], rows: Mapping[str, _Row], source: str) -> None:
    """X on the diagonal and nowhere else; what one row says of another, that one says too. MIG rows may lack."""
    kept = [at for at, name in enumerate(devices) if name in rows]
    take = itemgetter(*kept) if len(kept) > 1 else lambda cells: (cells[kept[0]],)
    table = [take(rows[devices[at]].cells) for at in kept]
    for at, (row, column) in enumerate(zip(table, zip(*table, strict=True), strict=True)):
        name = devices[kept[at]]
        where = f"{source}:{rows[name].line}"
        if row[at] != SELF or row.count(SELF) != 1:
            raise UsageError(f"row {name} must have X under {name} and nowhere else", where=where, fix=FIX)
        if row != column:
            other = next(i for i, (here, there) in enumerate(zip(row, column, strict=True)) if here != there)
            peer = devices[kept[other]]
            raise UsageError(
                f"the matrix contradicts itself: {name} says {row[other]} of {peer}, {peer} says {column[other]}",
                where=where,
                fix=FIX,
            )


def _names(devices: Sequence[str], lines: Sequence[str], source: str) -> tuple[dict[str, str], list[str]]:
    """NIC names by column, from the legend where there is one; and what must be said about them."""
    legend = {found[1]: found[2] for line in lines if (found := _LEGEND.fullmatch(line))}
    names = {name: legend.get(name, name) for name in devices if not name.startswith(("GPU", "MIG"))}
    if len(set(names.values())) < len(names):
        raise UsageError("the NIC legend gives two NICs the same name", where=source, fix=FIX)
    return names, [UNNAMED] if any(name.startswith("NIC") for name in names.values()) else []


def _gpus(
    devices: Sequence[str],
    columns: Sequence[str],
    rows: Mapping[str, _Row],
    names: Mapping[str, str],
    listed: Mapping[int, _Listed],
    source: str,
) -> tuple[Gpu, ...]:
    peers = {at: int(name[3:]) for at, name in enumerate(devices) if name.startswith("GPU")}
    nics = {at: names[name] for at, name in enumerate(devices) if name in names}
    made = []
    for at, index in peers.items():
        line, cells, rest = rows[devices[at]]
        where = f"{source}:{line}"
        widths = {cell: int(cell[2:]) for cell in set(cells) if _LINKS.fullmatch(cell)}
        extra = dict(zip(columns, rest, strict=False))
        known = listed.get(index, _Listed("", f"GPU-unknown-{index}", []))
        made.append(
            Gpu(
                index=index,
                uuid=known.uuid,
                name=known.name,
                memory_bytes=0,
                numa=_numa(extra.get("NUMA Affinity", "N/A"), where),
                cores=_cores(extra.get("CPU Affinity", "N/A"), where),
                nvlinks={peer: widths[cells[i]] for i, peer in peers.items() if cells[i] in widths},
                gpu_distances={peer: CLASSES[cells[i]] for i, peer in peers.items() if cells[i] in CLASSES},
                nic_distances={nic: CLASSES[cells[i]] for i, nic in nics.items() if cells[i] in CLASSES},
                mig_enabled=bool(known.mig),
                mig=tuple(known.mig),
            )
        )
    return tuple(sorted(made, key=lambda gpu: gpu.index))


def _cores(text: str, where: str) -> tuple[int, ...]:
    """Cores of the `CPU Affinity` column; none where the driver does not say."""
    if text == "N/A":
        return ()
    cores: set[int] = set()
    for part in text.rstrip(",").split(",") if _CORES.fullmatch(text) else [""]:
        first, _, last = part.partition("-")
        if not part or int(last or first) < int(first) or int(last or first) >= MAX_CORE:
            raise UsageError(f"`{text[:40]}` is no list of cores", where=where, fix=FIX)
        cores.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cores))


def _numa(text: str, where: str) -> int | None:
    """The NUMA node; None where it is not known or there are several."""
    if text.isascii() and text.isdigit() and len(text) <= 5:
        return int(text)
    if text != "N/A" and not _NODES.fullmatch(text):
        raise UsageError(f"`{text[:40]}` is no NUMA node", where=where, fix=FIX)
    return None


def _nic(name: str, gpus: Sequence[Gpu]) -> Nic:
    """A NIC sits on the NUMA node of the GPUs that reach it without crossing sockets, if these agree."""
    near = {gpu.numa for gpu in gpus if gpu.nic_distances and gpu.nic_distances.get(name, "SYS") != "SYS"}
    numa = near.pop() if len(near) == 1 else None
    return Nic(name=name, numa=numa, ports=(PORT,), bond=name if "bond" in name else None)


def _listed(lines: Sequence[str]) -> dict[int, _Listed]:
    """Names, UUIDs and MIG slices from `nvidia-smi -L`, where that was pasted too."""
    found: dict[int, _Listed] = {}
    last: _Listed | None = None
    for line in lines:
        if gpu := _LISTED.fullmatch(line):
            last = found[int(gpu[1])] = _Listed(gpu[2], gpu[3], [])
        elif last and (part := _SLICE.fullmatch(line)):
            last.mig.append(MigDevice(index=int(part[2]), uuid=part[3], profile=part[1]))
    return found
