"""The commands that look at a run or change it, as the command line declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli.options import Follow, Json, Name, NoColor


def status(
    name: Name = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on; off a terminal, its changes.")] = False,
    json_: Json = False,
    no_color: NoColor = False,
) -> None:
    """Show a run: processes, transport per pair, traffic, TTFT and its split."""
    from dynctl.cli import runs, status_watch

    if watch:
        raise typer.Exit(status_watch.watch(name, as_json=json_, no_color=no_color))
    raise typer.Exit(runs.status(name, as_json=json_, no_color=no_color))


def logs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The run, or a process of the only run.")] = None,
    process: Annotated[
        str | None, typer.Argument(metavar="[PROCESS]", help="prefill-0, frontend, supervisor, ...")
    ] = None,
    follow: Follow = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many last lines of each.")] = 50,
    ucx: Annotated[bool, typer.Option("--ucx", help="UCX's own lines too.")] = False,
) -> None:
    """Print the logs of a run's processes."""
    from dynctl.cli.logs import logs

    raise typer.Exit(logs(name, process, follow=follow, lines=lines, ucx=ucx))


def events(
    name: Name = None,
    follow: Follow = False,
    process: Annotated[
        list[str], typer.Option("--process", "-p", metavar="PROCESS", help="Of this one alone; repeatable.")
    ] = [],  # noqa: B006 - typer reads the default, nobody changes it
    since: Annotated[str | None, typer.Option(metavar="10m", help="Not older than that.")] = None,
    json_: Json = False,
) -> None:
    """Print a run's event log: every change of state, when and why."""
    from dynctl.cli.events import events

    raise typer.Exit(events(name, follow=follow, processes=process, since=since, as_json=json_))


def report(
    name: Name = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.tar.gz", help="The file to write.")
    ] = None,
) -> None:
    """Pack what is needed to get help: plan, events, logs, versions, hardware. Secrets are left out."""
    from dynctl.cli.report import report

    raise typer.Exit(report(name, output))


Timeout = Annotated[float, typer.Option(min=0, help="Seconds that requests in flight may take to end.")]


def restart(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME] [PROCESS...]", help="The run, and its processes; without any, all of them."),
    ] = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """Restart a run's processes one after the other: drained, ended, started in the same place, proven again."""
    from dynctl.cli.operate import restart

    raise typer.Exit(restart(names or [], timeout, as_json=json_))


def drain(
    names: Annotated[list[str], typer.Argument(metavar="[NAME] PROCESS", help="The run, and its worker.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take it in again.")] = False,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """Take a worker out of the frontend and let what it has end; its process stays."""
    from dynctl.cli.operate import drain

    raise typer.Exit(drain(names, timeout, undo=undo, as_json=json_))


def scale(
    counts: Annotated[list[str], typer.Argument(metavar="ROLE=N...", help="Workers that a role is to have.")],
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="The run, where there are several.")] = None,
    timeout: Timeout = 30.0,
    json_: Json = False,
) -> None:
    """Change how many workers a role of a running deployment has. The others stay as they are."""
    from dynctl.cli.scale import scale

    raise typer.Exit(scale(counts, run, timeout, as_json=json_))


COMMANDS = (status, logs, events, restart, drain, scale, report)
