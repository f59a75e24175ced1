"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours.")]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The run; may be left out when there is only one.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes; Ctrl-C only detaches.")]
File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A topology file; ./topology.yaml by default.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key; repeatable.")]
Node = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which of the file's nodes; by default the one whose address this host has."),
]
HardwareFile = Annotated[
    Path | None,
    typer.Option(
        "--hardware",
        metavar="FILE",
        help="Another machine: a snapshot, the text of `nvidia-smi topo -m`, or an NCCL topology XML; - for stdin.",
    ),
]
