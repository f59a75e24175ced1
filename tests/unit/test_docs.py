"""The documents say what is: the annotated topology is a valid one, the README names every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynctl.cli.app import app
from dynctl.topology.load import load, parse

ROOT = Path(__file__).parents[2]


def test_the_annotated_topology_is_valid() -> None:
    """docs/topology.md is manual and example at once."""
    text = (ROOT / "docs/topology.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    topology = parse(block, source="docs/topology.md")
    assert topology.transport.direction == "pull"


def test_the_readme_topology_is_valid() -> None:
    """What the README shows can be pasted."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert parse(block, source="README.md").disaggregated


@pytest.mark.parametrize("profile", sorted(path.name for path in (ROOT / "profiles").glob("*.yaml")))
def test_every_profile_is_valid_and_named_after_its_file(profile: str) -> None:
    """Profiles load as they are."""
    assert load(ROOT / "profiles" / profile).name == profile.removesuffix(".yaml")


def test_the_readme_names_every_command() -> None:
    """A command that the README leaves out does not exist for its readers."""
    readme = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        assert command.hidden or f"`{name}`" in readme or f"`{name} " in readme, name
