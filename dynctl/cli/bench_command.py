"""`bench` as the command line declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli.options import Json, NoColor


def bench(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET [BASELINE]]",
            help="Runs by name, topology files that bench brings up, or URLs; the only run by default. "
            "`diff OLD NEW` compares two saved results.",
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Any OpenAI-compatible server.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Its model; asked for by default.")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="agg", help="Compare with the aggregated layout on as many GPUs.")
    ] = None,
    aa: Annotated[bool, typer.Option("--aa", help="Compare the target with itself: the noise floor.")] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Have both layouts up at once, even without GPUs.")
    ] = False,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="Closed loop of so many streams; several are a sweep.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R[,R...]", help="Open loop of so many requests per second.")
    ] = None,
    arrivals: Annotated[str, typer.Option(metavar="KIND", help="constant, poisson or gamma.")] = "poisson",
    burstiness: Annotated[
        float | None, typer.Option(metavar="X", help="Gamma arrivals: 1 is Poisson, less is burstier.")
    ] = None,
    ramp: Annotated[str | None, typer.Option(metavar="10s", help="Raise the rate over so long first.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests that count, per round and layout.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=99, help="Rounds; 5 to compare, else 1.")] = None,
    isl: Annotated[str, typer.Option(metavar="N", help="Input tokens: 3000, 3000±10%, 100-500.")] = "512",
    osl: Annotated[str, typer.Option(metavar="N", help="Output tokens, likewise.")] = "64",
    prefix: Annotated[int, typer.Option(min=0, help="Tokens at the beginning that prompts share.")] = 0,
    prefixes: Annotated[int, typer.Option(min=1, help="How many such beginnings there are.")] = 1,
    turns: Annotated[int, typer.Option(min=1, max=50, help="Turns of a conversation.")] = 1,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Replay a Mooncake or ShareGPT file.")] = None,
    speed: Annotated[float, typer.Option(help="Replay so many times faster.")] = 1.0,
    chat: Annotated[bool, typer.Option("--chat", help="Use /v1/chat/completions.")] = False,
    eos: Annotated[bool, typer.Option("--eos", help="Let the model end early (sends no ignore_eos).")] = False,
    seed: Annotated[int, typer.Option(help="Of lengths, words and arrivals.")] = 0,
    nonce: Annotated[str | None, typer.Option(help="Repeat the very prompts of an earlier bench.")] = None,
    slo: Annotated[str | None, typer.Option(metavar="ttft=300ms,itl=10ms", help="Objectives for goodput.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Loader processes.")] = 1,
    timeout: Annotated[str, typer.Option(metavar="10m", help="How long an answer may take to begin.")] = "10m",
    stall: Annotated[str, typer.Option(metavar="60s", help="How long one may stand still.")] = "60s",
    api_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The key; or $OPENAI_API_KEY.")] = None,
    json_: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Keep results there.")] = None,
    no_color: NoColor = False,
) -> None:
    """Measure a deployment, or compare two: TTFT, ITL, throughput, where TTFT goes, with intervals and a verdict."""
    from dynctl.cli.bench import bench as measure
    from dynctl.cli.bench_options import BenchOptions

    options = BenchOptions(
        url=url,
        model=model,
        compare=compare,
        aa=aa,
        together=together,
        concurrency=concurrency,
        rate=rate,
        arrivals=arrivals,
        burstiness=burstiness,
        ramp=ramp,
        requests=requests,
        rounds=rounds,
        isl=isl,
        osl=osl,
        prefix=prefix,
        prefixes=prefixes,
        turns=turns,
        trace=trace,
        speed=speed,
        chat=chat,
        eos=eos,
        seed=seed,
        nonce=nonce,
        slo=slo,
        processes=processes,
        timeout=timeout,
        stall=stall,
        api_key_file=api_key_file,
        json=json_,
        output=output,
        no_color=no_color,
    )
    raise typer.Exit(measure(targets or [], options))
