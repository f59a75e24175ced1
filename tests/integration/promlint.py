"""The rules of Prometheus' own linter (promtool's promlint), for families as prometheus_client parses them."""

from __future__ import annotations

import re
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

UNITS = {
    "seconds": ("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks"),
    "bytes": ("bits", "kilobytes", "megabytes", "gigabytes", "terabytes", "kibibytes", "mebibytes", "gibibytes"),
    "ratio": ("percent", "percents"),
}
ABBREVIATIONS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
TYPES = {"gauge", "counter", "summary", "histogram", "untyped"}


def problems(text: str) -> list[str]:
    """What is wrong with an exposition, a line each; ValueError where it can't be parsed at all."""
    found = []
    families = list(text_string_to_metric_families(text))
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        parts = set(re.split("_", family.name))
        if not family.documentation:
            found.append(f"{name}: no help text")
        if family.type == "counter" and f"# TYPE {name} counter" not in text:
            found.append(f"{name}: counters end with _total")
        if family.type != "counter" and family.name.endswith("_total"):
            found.append(f"{name}: only counters end with _total")
        if family.name.endswith(("_bucket", "_count", "_sum", "_info_total")):
            found.append(f"{name}: this ending is reserved")
        for base, others in UNITS.items():
            found += [f"{name}: use {base}, not {other}" for other in others if other in parts]
        found += [f"{name}: {word} is an abbreviation" for word in ABBREVIATIONS & parts]
        found += [f"{name}: the name says its type" for word in TYPES & parts]
        if ":" in family.name or re.search("[a-z][A-Z]", family.name):
            found.append(f"{name}: colons and camel case have no place in names")
        found += [
            f"{name}: label {label}"
            for sample in family.samples
            for label in sample.labels
            if label in ("le", "quantile") and family.type not in ("histogram", "summary")
        ]
        twice = [key for key, count in Counter(map(_key, family.samples)).items() if count > 1]
        found += [f"{name}: {key} more than once" for key in twice]
    names = Counter(family.name for family in families)
    return found + [f"{name}: declared more than once" for name, count in names.items() if count > 1]


def _key(sample: Sample) -> tuple[str, ...]:
    return (sample.name, *map(str, sorted(sample.labels.items())))
