"""The document of `check-rdma`: one row for every check, one for every pair proven, a verdict. Values only."""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.telemetry.status import Evidence, Verdict

CheckStatus = Literal["pass", "warn", "fail", "skip"]
Memory = Literal["cuda", "host"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `id` names the check (fabric rows: `state`, `gid`, `memlock`, ...), `target` what was looked at.

    `cause` is given with warn and fail, the reason of a skip stands in it too (`because dev`); `fix` is a command or
    setting to use; nothing is ever changed by dynctl.
    """

    id: str
    target: str
    status: CheckStatus
    observed: str | None = None
    expected: str | None = None
    cause: str | None = None
    fix: str | None = None


class PairReport(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One transfer proven: which way, of which memory, how fast. Rates are medians over repeats at `size_bytes`.

    `spread`: (p90 - p10) / median of the rate; `fraction_of_line_rate`: of the NICs' rate, None without one;
    `latency_us`: median at the smallest size; `gigabytes_per_s_by_size`: by size in bytes; `error` and `fix`: why there
    is no verdict.
    """

    from_: str
    to: str
    memory: Memory = "host"
    direction: Literal["read", "write"] = "read"
    verdict: Verdict = "unknown"
    gigabytes_per_s: float | None = None
    spread: float | None = None
    fraction_of_line_rate: float | None = None
    latency_us: float | None = None
    size_bytes: int | None = None
    gigabytes_per_s_by_size: dict[int, float] = {}
    gpu: int | None = None
    nics: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    error: str | None = None
    fix: str | None = None


class UcxLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """One UCX that is installed: the one NIXL loads, or another beside it (`used` False)."""

    source: str
    version: str | None = None
    path: str | None = None
    transports: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    used: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `check-rdma` found. `ok`: what the topology requires is proven for every pair and no row fails."""

    schema: int = 1
    ok: bool
    verdict: Verdict
    required: str
    hostname: str = ""
    peer: str | None = None
    checks: tuple[Check, ...] = ()
    pairs: tuple[PairReport, ...] = ()
    ucx: tuple[UcxLibrary, ...] = ()
    seconds: float | None = None
