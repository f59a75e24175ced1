"""`dynctl size`: prefill and decode workers from measured or given rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli.options import Json


def size(
    from_bench: Annotated[
        Path | None, typer.Option("--from-bench", metavar="DIR", help="Lengths and transfer of a saved bench.")
    ] = None,
    prefill_tok_s: Annotated[
        float | None, typer.Option("--prefill-tok-s", help="Prompt tokens per second of one prefill worker.")
    ] = None,
    decode_tok_s: Annotated[
        float | None, typer.Option("--decode-tok-s", help="Output tokens per second of one decode worker, within ITL.")
    ] = None,
    isl: Annotated[str | None, typer.Option(metavar="N", help="Input tokens.")] = None,
    osl: Annotated[str | None, typer.Option(metavar="N", help="Output tokens.")] = None,
    gpus: Annotated[int, typer.Option(min=1, max=4096, help="GPUs to share out.")] = 8,
    prefill_gpus: Annotated[int, typer.Option("--prefill-gpus", min=1, help="GPUs of a prefill worker.")] = 1,
    decode_gpus: Annotated[int, typer.Option("--decode-gpus", min=1, help="GPUs of a decode worker.")] = 1,
    slo: Annotated[str | None, typer.Option(metavar="ttft=300ms", help="Objective for the mean TTFT.")] = None,
    hit: Annotated[float, typer.Option(min=0, max=0.99, help="Share of prompts that is cached.")] = 0.0,
    batch: Annotated[float | None, typer.Option(min=1, help="Batch at which --decode-tok-s was reached.")] = None,
    kv_tokens: Annotated[
        float | None, typer.Option("--kv-tokens", min=1, help="KV cache of a decode worker, in tokens.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the best split as a topology file.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model of that file.")] = None,
    aiconfigurator: Annotated[
        bool,
        typer.Option("--aiconfigurator", help="Ask AIConfigurator, where it is installed; for --model on --system."),
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="h200_sxm", help="The GPUs, by AIConfigurator's name for them.")
    ] = None,
    json_: Json = False,
) -> None:
    """Advise how many prefill and decode workers, and tell when disaggregation can't win."""
    from dynctl.cli.size_answer import Asked, answer

    asked = Asked(
        from_bench=from_bench,
        prefill_tok_s=prefill_tok_s,
        decode_tok_s=decode_tok_s,
        isl=isl,
        osl=osl,
        gpus=gpus,
        prefill_gpus=prefill_gpus,
        decode_gpus=decode_gpus,
        slo=slo,
        hit=hit,
        batch=batch,
        kv_tokens=kv_tokens,
        output=output,
        model=model,
        aiconfigurator=aiconfigurator,
        system=system,
    )
    raise typer.Exit(answer(asked, as_json=json_))
