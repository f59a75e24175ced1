"""What UCX says about its transports, read line by line from a worker's log.

UCX writes (`UCX_LOG_LEVEL=info`, `UCX_PROTO_INFO=...`) between the engine's own lines:

* the lanes of every endpoint: `UCX  INFO  NAME intra-node cfg#1 rma_am(tcp/lo) am(tcp/lo cma/memory)`;
* a table per endpoint configuration, operation and pair of memory kinds: which protocol and lanes serve which sizes.
  Its title is one cell per row since UCX 1.21, `| NAME intra-node cfg#1 | remote memory ... |` before;
* errors and warnings about transports and devices, its version, and the `UCX_*` variables it found.

`(multi)` in a title is UCX_OP_ATTR_FLAG_MULTI_SEND, which NIXL sets on the reads and writes of a transfer.
Pure: lines in, values out. Nothing here raises on any input.
"""

from __future__ import annotations

import re
from typing import Literal, cast

import msgspec

Endpoint = Literal["self", "intra-node", "inter-node"]
Operation = Literal["get", "put"]
ErrorKind = Literal[
    "no-transport-of-that-name", "no-device-of-that-name", "no-usable", "no-am", "no-zero-copy", "cma", "other"
]

_PREFIX = re.compile(r"\[(\d{1,12}\.\d{1,9})\] \[([^\s\[\]]{1,255}?):(\d{1,10})\s*:([^\s\]]{1,20})\](.*)", re.ASCII)
_CHILD = re.compile(r"\(\w[\w .=-]{0,60}\) ")
_LANES = re.compile(r"UCX\s+INFO\s+(\S*)\s*\b(self|intra-node|inter-node) cfg#(\d{1,6})\s+(.*)", re.ASCII)
_LANE_GROUP = re.compile(r"(\w+)\(([^)]*)\)")
_ENDPOINT = re.compile(r"\b(self|intra-node|inter-node) cfg#(\d{1,6})", re.ASCII)
_OPERATION = re.compile(
    r"remote memory (read by ucp_get|write by ucp_put)\*?(?:\(([^)]*)\))?\s+(?:into|from)\s+(.+?)\s+(?:from|to)\s+(.+)"
)
_ANY_OPERATION = re.compile(r"\bby ucp_\w+\*?|\brendezvous (?:data|receive|send)\b|\batomic\b")
_RANGE = re.compile(r"(\d{1,18})([KMGTPE]?)(?:\.\.(?:(inf)|(\d{1,18})([KMGTPE]?)))?", re.ASCII)
_LANE = re.compile(r"(?<![\w/])([a-z][a-z0-9_]*/[^\s,;|()]+)")
_VERSION = re.compile(r"UCX\s+INFO\s+Version (\S+) \(loaded from ([^,)]+)")
_ENV_LINE = re.compile(r"UCX_\* env variables?: (.*)")
_ENV = re.compile(r"(UCX_\w+)=(.*?)(?=\s+UCX_\w+=|\s*$)")
_LEVEL = re.compile(r"UCX\s+(ERROR|FATAL|WARN|DIAG|INFO)\s+(.*)")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}
_ERRORS: tuple[tuple[re.Pattern[str], ErrorKind], ...] = (
    (re.compile(r"transports? '?([^']*?)'? (?:is|are) not available"), "no-transport-of-that-name"),
    (re.compile(r"network devices? '?([^']*?)'? (?:is|are) not available"), "no-device-of-that-name"),
    (re.compile(r"no usable transports/devices(?: \((.*)\))?"), "no-usable"),
    (re.compile(r"no active messages transport to (.*)"), "no-am"),
    (re.compile(r"No zero-copy protocol found for (.*)"), "no-zero-copy"),
    (re.compile(r"(process_vm_(?:readv|writev).*)"), "cma"),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One size range of a table. `lo_bytes`..`hi_bytes` inclusive, None: no upper end. `count`: uses, None in a plan.

    `estimate`: UCX marks the row `(?)`, a protocol it expects the peer to choose.
    """

    range_text: str
    lo_bytes: int
    hi_bytes: int | None
    description: str
    config: str
    lanes: tuple[str, ...]
    count: int | None = None
    estimate: bool = False


class ProtoTable(msgspec.Struct, frozen=True, kw_only=True):
    """The protocols of one endpoint configuration for remote reads (get) or writes (put); `lines` are verbatim."""

    pid: int
    at: float
    endpoint: Endpoint
    cfg: int
    operation: Operation
    multi: bool
    memory_local: str
    memory_remote: str
    title: str
    rows: tuple[Row, ...]
    lines: tuple[str, ...]
    source: str = ""


class LaneLine(msgspec.Struct, frozen=True, kw_only=True):
    """The lanes of one endpoint configuration by purpose: `{"rma_am": ("tcp/lo",), "am": ("tcp/lo", "cma/memory")}`."""

    pid: int
    at: float
    name: str
    endpoint: Endpoint
    cfg: int
    lanes: dict[str, tuple[str, ...]]
    line: str


class UcxError(msgspec.Struct, frozen=True, kw_only=True):
    """A complaint of UCX. `subject` is what it names: the transport, the device, the peer."""

    pid: int
    at: float
    level: str
    kind: ErrorKind
    message: str
    subject: str
    line: str


class UcxSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader has made of a log so far, as a value."""

    tables: tuple[ProtoTable, ...] = ()
    lanes: tuple[LaneLine, ...] = ()
    errors: tuple[UcxError, ...] = ()
    version: str | None = None
    env: dict[str, str] = {}


def is_ucx_line(line: str) -> bool:
    """Whether UCX wrote this log line: it begins `[seconds.microseconds] [host:pid :thread]`."""
    return _PREFIX.match(line) is not None


def parse_range(text: str) -> tuple[int, int | None] | None:
    """`0..inf`, `64K..1M` or `0` as bytes, ends included, the upper one None if open; None if the text is no range."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    low, low_unit, endless, high, high_unit = match.groups()
    lo = int(low) * _UNITS[low_unit]
    if endless:
        return lo, None
    return lo, int(high) * _UNITS[high_unit] if high else lo


class _Draft:
    """A table while its lines come in."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.endpoint: tuple[Endpoint, int] | None = None
        self.title: re.Match[str] | None = None
        self.columns: tuple[str, ...] | None = None
        self.rows: list[Row] = []
        self.lines: list[str] = []


class UcxReader:
    """Reads a log as it grows: `feed` it each line once, in order. Lines of other writers are passed over.

    Lines of several processes and threads may alternate: each thread's table is put together by itself. A table appears
    in `tables` when its last line was read, or when the thread went on to something else.
    """

    def __init__(self, source: str = "") -> None:
        self.source = source
        self.tables: list[ProtoTable] = []
        self.lanes: list[LaneLine] = []
        self.errors: list[UcxError] = []
        self.version: str | None = None
        self.library: str | None = None
        self.env: dict[str, str] = {}
        self._drafts: dict[tuple[int, str], _Draft] = {}

    def feed(self, line: str) -> None:
        """Takes one line of the log, with or without its line end."""
        line = line.rstrip("\r\n")
        match = _PREFIX.search(line) if "] [" in line else None
        if match is None:
            return
        at, _, pid, thread, body = match.groups()
        self._body(float(at), int(pid), thread, body.strip(), line[match.start() :])

    def said(self) -> UcxSaid:
        """All of it as of now."""
        return UcxSaid(
            tables=tuple(self.tables),
            lanes=tuple(self.lanes),
            errors=tuple(self.errors),
            version=self.version,
            env=dict(self.env),
        )

    def _body(self, at: float, pid: int, thread: str, body: str, line: str) -> None:
        key = (pid, thread)
        if body.startswith("+-"):
            draft = self._drafts.setdefault(key, _Draft(at))
            draft.lines.append(line)
            if draft.rows:
                self._finish(key)
        elif body.startswith("|") and body.endswith("|") and len(body) > 1:
            self._cells(key, at, [cell.strip() for cell in body[1:-1].split("|")], line)
        else:
            self._finish(key)
            self._message(at, pid, body, line)

    def _cells(self, key: tuple[int, str], at: float, cells: list[str], line: str) -> None:
        titled = any(_ENDPOINT.search(cell) or _ANY_OPERATION.search(cell) for cell in cells)
        draft = self._drafts.setdefault(key, _Draft(at))
        if titled and draft.rows:
            self._finish(key)
            draft = self._drafts.setdefault(key, _Draft(at))
        draft.lines.append(line)
        names = tuple(cell.lower() for cell in cells)
        if "range" in names:
            draft.columns = names
        elif titled and parse_range(cells[0]) is None:
            for cell in cells:
                if found := _ENDPOINT.search(cell):
                    draft.endpoint = (cast("Endpoint", found[1]), int(found[2]))
                draft.title = _OPERATION.search(cell) or draft.title
        elif row := _row(cells, draft.columns):
            draft.rows.append(row)

    def _finish(self, key: tuple[int, str]) -> None:
        draft = self._drafts.pop(key, None)
        if draft is None or draft.endpoint is None or draft.title is None or not draft.rows:
            return
        verb, attributes, local, remote = draft.title.groups()
        table = ProtoTable(
            pid=key[0],
            at=draft.at,
            endpoint=draft.endpoint[0],
            cfg=draft.endpoint[1],
            operation="get" if verb.endswith("get") else "put",
            multi="multi" in (attributes or ""),
            memory_local=local.removesuffix(" memory"),
            memory_remote=remote.removesuffix(" memory"),
            title=draft.title[0],
            rows=tuple(draft.rows),
            lines=tuple(draft.lines),
            source=self.source,
        )
        self.tables.append(table)

    def _message(self, at: float, pid: int, body: str, line: str) -> None:
        if found := _LANES.search(body):
            groups = {purpose: tuple(lanes.split()) for purpose, lanes in _LANE_GROUP.findall(found[4])}
            endpoint = cast("Endpoint", found[2])
            self.lanes.append(
                LaneLine(pid=pid, at=at, name=found[1], endpoint=endpoint, cfg=int(found[3]), lanes=groups, line=line)
            )
        elif found := _VERSION.search(body):
            self.version, self.library = found[1], found[2].strip()
        elif found := _ENV_LINE.search(body):
            self.env.update(_ENV.findall(re.sub(r"\s*\(unused:.*", "", found[1])))
        else:
            self._complaint(at, pid, body, line)

    def _complaint(self, at: float, pid: int, body: str, line: str) -> None:
        levelled = _LEVEL.search(body)
        level, message = levelled.groups() if levelled else ("", body)
        known = ((pattern.search(message), kind) for pattern, kind in _ERRORS)
        found, kind = next((hit for hit in known if hit[0]), (None, "other"))
        if found is None and level not in ("ERROR", "FATAL", "WARN"):
            return
        subject = (found[1] or "").strip() if found else ""
        self.errors.append(
            UcxError(pid=pid, at=at, level=level.lower(), kind=kind, message=message, subject=subject, line=line)
        )


def _row(cells: list[str], columns: tuple[str, ...] | None) -> Row | None:
    """A data row by its header, or by its number of cells where the table has no header row; None if it is none."""
    if columns is None:
        columns = ("count", "range", "description", "config")[-len(cells) :]
    named = dict(zip(columns, cells, strict=False))
    bounds = parse_range(named.get("range", ""))
    if bounds is None:
        return None
    description, config, count = named.get("description", ""), named.get("config", ""), named.get("count", "")
    return Row(
        range_text=named["range"],
        lo_bytes=bounds[0],
        hi_bytes=bounds[1],
        description=description.removeprefix("(?)").strip(),
        config=config,
        lanes=tuple(_LANE.findall(config)),
        count=int(count[:18]) if count.isascii() and count.isdigit() else None,
        estimate=description.startswith("(?)"),
    )
