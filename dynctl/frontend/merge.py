"""One answer from what each process of a frontend counts: pure. The first process's part comes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from dynctl.frontend.messages import RequestRecord

ONCE = frozenset(
    {
        "dynctl_worker_ready",
        "dynctl_workers",
        "dynctl_degraded",
        "dynctl_up",
        "dynctl_health_seconds",
        "dynctl_ttft_window_seconds",
        "dynctl_kv_transfer_bytes_per_second",
        "dynctl_decode_alone_tokens",
        "process_start_time_seconds",
        "process_max_fds",
        "python_info",
    }
)
"""What all processes say alike: the first one's word counts. All else is summed."""
_LASTING = ("counter", "histogram")


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric's samples: each with its name, its labels, and its value."""

    name: str
    documentation: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


Part = list[Family]
"""What one process counts."""


def part(metrics: Iterable[Metric]) -> Part:
    """Of prometheus_client's own."""
    return [
        Family(one.name, one.documentation, one.type, [(s.name, dict(s.labels), s.value) for s in one.samples])
        for one in metrics
    ]


def merged(parts: Sequence[Part]) -> Part:
    """The sums of all, and the first one's word on what is said once."""
    heads: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for place, given in enumerate(parts):
        for family in given:
            heads.setdefault(family.name, family)
            found = sums.setdefault(family.name, {})
            if place and family.name in ONCE:
                continue
            for name, labels, value in family.samples:
                key = (name, tuple(labels.items()))
                found[key] = found.get(key, 0.0) + value
    return [
        Family(
            head.name,
            head.documentation,
            head.kind,
            [(name, dict(labels), value) for (name, labels), value in sums[head.name].items()],
        )
        for head in heads.values()
    ]


def lasting(given: Part) -> Part:
    """What a process that is gone has counted for good: totals never fall."""
    return [family for family in given if family.kind in _LASTING and family.name not in ONCE]


def text(given: Part) -> bytes:
    """In Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(given))
    return generate_latest(registry)


def latest(lists: Iterable[Iterable[RequestRecord]], most: int) -> list[RequestRecord]:
    """The last requests of all processes, the one that ended last first."""
    records = [record for records in lists for record in records]
    return sorted(records, key=lambda record: record.at + record.total_ms / 1000, reverse=True)[:most]


class _Shown(Collector):
    def __init__(self, given: Part) -> None:
        self._given = given

    def collect(self) -> Iterable[Metric]:
        for family in self._given:
            metric = Metric(family.name, family.documentation, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
