"""`bench` as the command line declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli.options import Json, NoColor

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET [BASELINE]]",
        help="Runs by name, topology files that bench brings up, or URLs; the only run by default. "
        "`diff OLD NEW` compares two saved results.",
    ),
]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Any OpenAI-compatible server.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Its model; asked for by default.")]
Compare = Annotated[str | None, typer.Option(metavar="agg", help="Compare with the aggregated layout on as many GPUs.")]
AgainstItself = Annotated[bool, typer.Option("--aa", help="Compare the target with itself: the noise floor.")]
Together = Annotated[bool, typer.Option("--together", help="Have both layouts up at once, even without GPUs.")]
Alternate = Annotated[
    bool,
    typer.Option(
        "--alternate", help="--compare: end the running deployment meanwhile, and bring it up again at the end."
    ),
]
Concurrency = Annotated[
    str | None, typer.Option(metavar="N[,N...]", help="Closed loop of so many streams; several are a sweep.")
]
Rate = Annotated[str | None, typer.Option(metavar="R[,R...]", help="Open loop of so many requests per second.")]
Arrivals = Annotated[str, typer.Option(metavar="KIND", help="constant, poisson or gamma.")]
Burstiness = Annotated[float | None, typer.Option(metavar="X", help="Gamma arrivals: 1 is Poisson, less is burstier.")]
Ramp = Annotated[str | None, typer.Option(metavar="10s", help="Raise the rate over so long first.")]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests that count, per round and layout.")]
Rounds = Annotated[int | None, typer.Option(min=1, max=99, help="Rounds; 5 to compare, else 1.")]
Isl = Annotated[str, typer.Option(metavar="N", help="Input tokens: 3000, 3000±10%, 100-500.")]
Osl = Annotated[str, typer.Option(metavar="N", help="Output tokens, likewise.")]
Prefix = Annotated[int, typer.Option(min=0, help="Tokens at the beginning that prompts share.")]
Prefixes = Annotated[int, typer.Option(min=1, help="How many such beginnings there are.")]
Turns = Annotated[int, typer.Option(min=1, max=50, help="Turns of a conversation.")]
Trace = Annotated[Path | None, typer.Option(metavar="FILE", help="Replay a Mooncake or ShareGPT file.")]
Speed = Annotated[float, typer.Option(help="Replay so many times faster.")]
Chat = Annotated[bool, typer.Option("--chat", help="Use /v1/chat/completions.")]
Eos = Annotated[bool, typer.Option("--eos", help="Let the model end early (sends no ignore_eos).")]
Seed = Annotated[int, typer.Option(help="Of lengths, words and arrivals.")]
Nonce = Annotated[str | None, typer.Option(help="Repeat the very prompts of an earlier bench.")]
Slo = Annotated[str | None, typer.Option(metavar="ttft=300ms,itl=10ms", help="Objectives for goodput.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Loader processes.")]
Backend = Annotated[str, typer.Option(metavar="aiperf", help="Let aiperf send and measure, where it is installed.")]
Tokenizer = Annotated[str | None, typer.Option(metavar="NAME", help="aiperf's; the model's by default.")]
Timeout = Annotated[str, typer.Option(metavar="10m", help="How long an answer may take to begin.")]
Stall = Annotated[str, typer.Option(metavar="60s", help="How long one may stand still.")]
ApiKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The key; or $OPENAI_API_KEY.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Keep results there.")]


def bench(
    targets: Targets = None,
    url: Url = None,
    model: Model = None,
    compare: Compare = None,
    aa: AgainstItself = False,
    together: Together = False,
    alternate: Alternate = False,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: Arrivals = "poisson",
    burstiness: Burstiness = None,
    ramp: Ramp = None,
    requests: Requests = None,
    rounds: Rounds = None,
    isl: Isl = "512",
    osl: Osl = "64",
    prefix: Prefix = 0,
    prefixes: Prefixes = 1,
    turns: Turns = 1,
    trace: Trace = None,
    speed: Speed = 1.0,
    chat: Chat = False,
    eos: Eos = False,
    seed: Seed = 0,
    nonce: Nonce = None,
    slo: Slo = None,
    processes: Processes = 1,
    backend: Backend = "dynctl",
    tokenizer: Tokenizer = None,
    timeout: Timeout = "10m",
    stall: Stall = "60s",
    api_key_file: ApiKeyFile = None,
    json_: Json = False,
    output: Output = None,
    no_color: NoColor = False,
) -> None:
    """Measure a deployment, or compare two: TTFT, ITL, throughput, where TTFT goes, with intervals and a verdict."""
    given = dict(locals())
    from dynctl.cli.bench import bench as measure
    from dynctl.cli.bench_options import BenchOptions

    names, as_json = given.pop("targets") or [], given.pop("json_")
    raise typer.Exit(measure(names, BenchOptions(json=as_json, **given)))
