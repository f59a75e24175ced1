"""The command line: every command is declared here and does its work elsewhere, imported only when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli import run_commands
from dynctl.cli.bench_command import bench
from dynctl.cli.export import export
from dynctl.cli.frontend import frontend
from dynctl.cli.import_command import import_
from dynctl.cli.options import File, HardwareFile, Json, Name, NoColor, Node, Sets
from dynctl.cli.size import size
from dynctl.errors import DynctlError, UsageError

app = typer.Typer(
    name="dynctl",
    help="Serve an LLM disaggregated on bare metal: prefill and decode apart, the KV path proven, TTFT taken apart.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def up(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|NAME]", help="A topology file, or the name of a known run.")
    ] = None,
    sets: Sets = [],  # noqa: B006 - typer reads the default, nobody changes it
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return when ready; the run goes on.")] = False,
    verify: Annotated[
        bool | None, typer.Option("--verify/--no-verify", help="Compare tokens with decode alone before ready.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="One line per request served.")] = False,
    json_: Json = False,
    no_color: NoColor = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="When ready, send a request and show its TTFT split.")
    ] = False,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", help="Start the engines without proving the KV path first.")
    ] = False,
    node: Node = None,
    ssh: Annotated[
        bool, typer.Option("--ssh", help="Start every node of FILE from here, over ssh; Ctrl-C ends them all.")
    ] = False,
    ssh_dynctl: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="dynctl on the nodes; by default where it is here, then on their PATH."),
    ] = None,
) -> None:
    """Start a deployment: plan, preflight, spawn, gates, proof; then the live view."""
    from dynctl.cli.up import UpOptions, up

    options = UpOptions(
        detach=detach,
        verify=verify,
        verbose=verbose,
        json=json_,
        no_color=no_color,
        sample=sample,
        preflight=not no_preflight,
        node=node,
        ssh=ssh,
        ssh_dynctl=ssh_dynctl,
    )
    raise typer.Exit(up(file, sets, options))


@app.command()
def init(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file to write; ./topology.yaml by default.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Hub id, path or builtin:tiny.")] = None,
    hardware: HardwareFile = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a topology that fits this machine and the model, and say why."""
    from dynctl.cli.init import init

    raise typer.Exit(init(file, model=model, hardware=hardware, name=name, force=force))


@app.command()
def validate(file: File = None, sets: Sets = [], hardware: HardwareFile = None) -> None:  # noqa: B006
    """Check a topology file; with --hardware, that it fits that machine."""
    from dynctl.cli.plan import validate

    raise typer.Exit(validate(file, sets, hardware))


@app.command()
def plan(
    file: File = None,
    sets: Sets = [],  # noqa: B006
    hardware: HardwareFile = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each process sits where it sits.")] = False,
    json_: Json = False,
    node: Node = None,
) -> None:
    """Show every process with its GPUs, cores, ports, environment and argv. Starts nothing."""
    from dynctl.cli.plan import plan

    raise typer.Exit(plan(file, sets, hardware, as_json=json_, explain=explain, node=node))


@app.command()
def hardware(hardware: HardwareFile = None, json_: Json = False) -> None:
    """Show GPUs, NICs, NUMA nodes and their distances; --json is a snapshot that `plan --hardware` takes."""
    from dynctl.cli.hardware import hardware as show

    raise typer.Exit(show(hardware, as_json=json_))


@app.command()
def schema() -> None:
    """Print the topology's JSON schema, for editors."""
    from dynctl.cli.plan import schema

    raise typer.Exit(schema())


@app.command(name="check-rdma")
def check_rdma(
    file: File = None,
    sets: Sets = [],  # noqa: B006
    require: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The slowest KV path to accept: auto|nvlink|rdma|shm|tcp.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Check a node's files recorded there.")] = None,
    watch: Annotated[str | None, typer.Option(metavar="10s", help="Watch error counters for so long.")] = None,
    size: Annotated[str | None, typer.Option(metavar="N", help="Transfer this much: 64K, 256M.")] = None,
    both: Annotated[bool, typer.Option("--both", help="READ and WRITE.")] = False,
    json_: Json = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page, too.")] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="[HOST[:PORT]]", help="Wait for another node; loopback without an address.")
    ] = None,
    peer: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="The node that listens.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="F", help="The listener's token; or in DYNCTL_TOKEN.")
    ] = None,
    node: Node = None,
    wait: Annotated[
        str | None, typer.Option(metavar="60s", help="How long to wait for another node of the file.")
    ] = None,
    no_color: NoColor = False,
) -> None:
    """Check this node's RDMA, prove the KV path of each pair, and say what is wrong and how to mend it."""
    from dynctl.cli.check_rdma import CheckOptions, check_rdma

    options = CheckOptions(
        require=require,
        root=root,
        watch=watch,
        size=size,
        both=both,
        json=json_,
        report=report,
        listen=listen,
        peer=peer,
        token_file=token_file,
        no_color=no_color,
        node=node,
        wait=wait,
    )
    raise typer.Exit(check_rdma(file, sets, options))


for command in run_commands.COMMANDS:
    app.command()(command)


@app.command()
def down(
    name: Name = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that requests in flight may take to end.")] = 30.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill at once.")] = False,
    everywhere: Annotated[bool, typer.Option("--all", help="Ask the run's other nodes to end, too.")] = False,
    orphans: Annotated[bool, typer.Option("--orphans", help="End what dead supervisors left on this host.")] = False,
) -> None:
    """End a run: drain the frontend, then decode, then prefill; nothing of it is left."""
    from dynctl.cli.down import down, down_orphans

    if orphans and name:
        raise UsageError("--orphans is about all runs without a supervisor", fix="leave NAME out")
    if orphans:
        raise typer.Exit(down_orphans(timeout_s=timeout, kill=kill))
    raise typer.Exit(down(name, timeout_s=timeout, kill=kill, everywhere=everywhere))


app.command()(frontend)
app.command()(bench)
app.command()(size)
app.add_typer(export)
app.command(name="import")(import_)


@app.command(hidden=True)
def engine(
    action: Annotated[str, typer.Argument(metavar="build")] = "build",
    engine: Annotated[str, typer.Option(help="vllm or dynamo")] = "vllm",
) -> None:
    """Build the engine environment (what `make engine` runs)."""
    from dynctl.cli.engine import build

    raise typer.Exit(build(engine))


@app.command(name="_supervise", hidden=True)
def supervise(name: str, lock: int, listener: int, adopting: bool = False) -> None:
    """The supervisor process of a run."""
    from dynctl.runtime.launch import supervise

    raise typer.Exit(supervise(name, lock, listener, adopting=adopting))


@app.command(name="_load", hidden=True)
def load() -> None:
    """A loader process of `bench`."""
    from dynctl.bench.worker import main

    raise typer.Exit(main())


@app.command(name="_hold", hidden=True)
def hold() -> None:
    """Holds a run that `bench` brought up, and ends it with it."""
    from dynctl.bench.holder import main

    raise typer.Exit(main())


@app.command(name="_node", hidden=True)
def node() -> None:
    """A node's side of `up --ssh`."""
    from dynctl.cli.ssh_node import node

    raise typer.Exit(node())


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options that stand before any command."""
    if version:
        from dynctl import __version__

        print(f"dynctl {__version__}")  # noqa: T201 - stdout is data
        raise typer.Exit


def listen_alone(arguments: list[str]) -> list[str]:
    """`--listen` may stand without an address, which the option parser does not know: then it gets an empty one."""
    if arguments[:1] != ["check-rdma"] or "--listen" not in arguments:
        return arguments
    at = arguments.index("--listen")
    rest = arguments[at + 1 :]
    alone = not rest or rest[0].startswith("-") or rest[0].endswith((".yaml", ".yml", ".json")) or "/" in rest[0]
    return [*arguments[:at], *(["--listen="] if alone else ["--listen", *rest[:1]]), *rest[not alone :]]


def run(arguments: list[str]) -> int:
    """Runs one command; the exit code."""
    try:
        app(listen_alone(arguments))
    except SystemExit as asked:
        return asked.code if isinstance(asked.code, int) else 1 if asked.code else 0
    except KeyboardInterrupt:
        return 130
    except DynctlError as error:
        for line in error.lines():
            print(line, file=sys.stderr)  # noqa: T201 - stderr is talk
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
