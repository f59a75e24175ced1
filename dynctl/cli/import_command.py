"""`dynctl import`: a DynamoGraphDeployment as a topology."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dynctl.cli.options import Json


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file with a DynamoGraphDeployment; - for stdin.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the topology there, not to stdout.")
    ] = None,
    json_: Json = False,
) -> None:
    """Read a DynamoGraphDeployment into a topology, naming every field that it leaves out."""
    import msgspec

    from dynctl.cli.export import talk, write
    from dynctl.export.from_graph import from_documents
    from dynctl.export.yaml_text import dump
    from dynctl.topology.load import parse, read_text
    from dynctl.topology.yaml_source import MAX_BYTES, compose_documents, decode

    source = "stdin" if str(file) == "-" else str(file)
    text = decode(sys.stdin.buffer.read(MAX_BYTES + 1), source) if source == "stdin" else read_text(file)
    data, left = from_documents(compose_documents(text, source), source)
    topology = dump(data)
    parse(topology, source=f"the topology of {source}")
    if json_:
        rows = [{"path": one.path, "at": str(one.place), "why": one.why} for one in left]
        document = {"schema": 1, "topology": data, "left_out": rows}
        write(msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n", output)
        return
    for one in left:
        talk(f"left out: {one.place} {one.path}: {one.why}")
    write(topology, output)
