"""Plain data as YAML that every reader understands alike."""

from __future__ import annotations

from typing import Any

import yaml

from dynctl.topology.nodes import Place, Scalar, scalar_value


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and quotes text that some YAML version would take for something else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    read = scalar_value(Scalar(value, plain=True, place=Place("")))
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if read == value else '"')


_Dumper.add_representer(str, _text)


def dump(data: Any) -> str:
    """Keys in the order given, long lines whole."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text
