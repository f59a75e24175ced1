"""Keeps secrets out of what is shown or kept of a plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from dynctl.plan.values import Plan

SECRET_NAME = re.compile(r"(?i)token(?!izer)|secret|passw|credential|api_?key|access_?key|private_?key")
HIDDEN = "***"

Secrets = dict[str, dict[str, str]]
"""Environment variables that must not be shown, by process id."""


def split(plan: Plan) -> tuple[Plan, Secrets]:
    """The plan with the values of secret variables hidden, and those values."""
    secrets: Secrets = {}
    for process in plan.processes:
        found = {name: value for name, value in process.env.items() if _is_secret(name, value)}
        if found:
            secrets[process.id] = found
    return _with(plan, {key: dict.fromkeys(names, HIDDEN) for key, names in secrets.items()}), secrets


def restore(plan: Plan, secrets: Mapping[str, Mapping[str, str]]) -> Plan:
    """The plan as it was before `split`."""
    return _with(plan, secrets)


def _is_secret(name: str, value: str) -> bool:
    # a path to a secret is none
    return bool(SECRET_NAME.search(name)) and not value.startswith("/")


def _with(plan: Plan, values: Mapping[str, Mapping[str, str]]) -> Plan:
    processes = tuple(
        msgspec.structs.replace(process, env={**process.env, **values.get(process.id, {})})
        for process in plan.processes
    )
    return msgspec.structs.replace(plan, processes=processes)
