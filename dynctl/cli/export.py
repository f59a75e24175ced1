"""`dynctl export`: a topology as something else that runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynctl.cli.options import File, HardwareFile, Node, Sets
from dynctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write there, not to stdout.")]

export = typer.Typer(
    name="export", help="Write a topology as something else that runs it.", no_args_is_help=True, rich_markup_mode=None
)


@export.command()
def k8s(
    file: File = None,
    sets: Sets = [],  # noqa: B006
    api: Annotated[str, typer.Option(metavar="VERSION", help="v1beta1 or v1alpha1.")] = "v1beta1",
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Container image of every component; or x-k8s.image.")
    ] = None,
    output: Output = None,
) -> None:
    """A DynamoGraphDeployment for Kubernetes."""
    from dynctl.cli import choose
    from dynctl.export import v1alpha1, v1beta1
    from dynctl.export.graph import unversioned
    from dynctl.export.to_graph import to_graph
    from dynctl.export.yaml_text import dump

    versions = {"v1beta1": v1beta1.write, "v1alpha1": v1alpha1.write}
    if api not in versions:
        raise UsageError(f"there is no API version `{api}`", fix=f"--api {' or '.join(versions)}")
    topology = choose.topology(file, sets)
    graph, left_out = to_graph(topology, image)
    if not topology.engine.startswith("dynamo-"):
        talk(f"note: engine `{topology.engine}` becomes Dynamo's worker for it, behind Dynamo's own frontend")
    if silent := unversioned(graph):
        talk(
            f"note: no version in the image's tag ({', '.join(silent)}): newer operators ask for x-k8s.runtime_version"
        )
    for key in left_out:
        talk(f"left out: {topology.where(*key.split('.'))}: a DynamoGraphDeployment has no place for it")
    write(dump(versions[api](graph)), output)


def write(text: str, output: Path | None, *, executable: bool = False) -> None:
    """To the file whole or not at all, or to stdout."""
    from dynctl.replacing import replace

    if output is None:
        print(text, end="")  # noqa: T201
        return
    try:
        replace(output, text.encode())
        if executable and output.is_file():
            output.chmod(output.stat().st_mode | 0o111)
    except OSError as error:
        raise UsageError(f"can't write {output}", why=error.strerror, fix="choose another --output") from None
    talk(f"wrote {output}")


def talk(*lines: str) -> None:
    """To stderr."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201


def warn(warnings: Iterable[str]) -> None:
    """A plan's warnings."""
    talk(*(f"warning: {warning}" for warning in warnings))


@export.command()
def bash(
    file: File = None,
    sets: Sets = [],  # noqa: B006
    hardware: HardwareFile = None,
    node: Node = None,
    output: Output = None,
) -> None:
    """A script that starts the plan's processes, and ends them all when it ends."""
    from dynctl.cli.plan import plan_of
    from dynctl.export.bash import bash

    plan, _ = plan_of(file, sets, hardware, node)
    warn(plan.warnings)
    write(bash(plan), output, executable=True)


@export.command()
def systemd(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Directory to write the units to.")],
    file: File = None,
    sets: Sets = [],  # noqa: B006
    hardware: HardwareFile = None,
    node: Node = None,
) -> None:
    """Units of systemd: a service for each process, and a target."""
    from dynctl.cli.plan import plan_of
    from dynctl.export.systemd import units

    plan, _ = plan_of(file, sets, hardware, node)
    warn(plan.warnings)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make {output}", why=error.strerror, fix="choose another --output") from None
    for name, text in units(plan).items():
        write(text, output / name)


@export.command()
def slurm(
    file: File = None,
    sets: Sets = [],  # noqa: B006
    hardware: HardwareFile = None,
    node: Node = None,
    time: Annotated[str, typer.Option(metavar="LIMIT", help="The job's time limit, as Slurm takes it.")] = "1-00:00:00",
    output: Output = None,
) -> None:
    """A batch job for Slurm, on one node or on those of the topology."""
    from dynctl.cli.plan import plan_of
    from dynctl.export.slurm import sbatch

    if not re.fullmatch(r"[0-9]{1,6}(-[0-9]{1,2})?(:[0-9]{1,2}){0,2}", time, re.ASCII):
        raise UsageError(f"`{time}` is no time limit", fix="for example --time 08:00:00, or 2-00:00:00")
    plan, _ = plan_of(file, sets, hardware, node)
    warn(plan.warnings)
    write(sbatch(plan, time), output)
