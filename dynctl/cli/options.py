"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours.")]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The run; may be left out when there is only one.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes; Ctrl-C only detaches.")]
