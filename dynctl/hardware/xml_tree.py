"""Small XML documents as a tree with line numbers: no DTD, no entities, bounded in elements and depth. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from dynctl.errors import UsageError

MAX_ELEMENTS = 200_000
MAX_DEPTH = 64


@dataclass(slots=True)
class Element:
    """One element; its text is left out. `line` counts from 1."""

    tag: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)


def parse_tree(data: bytes, source: str) -> Element:
    """The root element. UsageError, with the line, for what is not well-formed, declares a DTD, or is too large."""
    parser = expat.ParserCreate()
    top = Element("", 0, {})
    stack = [top]
    count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        where = f"{source}:{parser.CurrentLineNumber}"
        if count > MAX_ELEMENTS:
            raise UsageError(
                f"the XML has more than {MAX_ELEMENTS} elements", where=where, why="no node's topology has"
            )
        if len(stack) > MAX_DEPTH:
            raise UsageError(
                f"the XML nests deeper than {MAX_DEPTH} elements", where=where, why="no node's topology does"
            )
        element = Element(tag, parser.CurrentLineNumber, attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def refuse(*_: object) -> None:
        raise UsageError(
            "the XML declares a document type or an entity; that is not read",
            where=f"{source}:{parser.CurrentLineNumber}",
            why="NCCL's topologies have none, and entities can name other files or grow without bound",
            fix="remove the DOCTYPE",
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: stack.pop()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        where = f"{source}:{error.lineno}"
        why = expat.ErrorString(error.code)
        raise UsageError("the file is not well-formed XML", where=where, why=why, fix="give the whole file") from error
    except (ValueError, LookupError) as error:  # an encoding that is unknown, or not supported
        raise UsageError(
            "the file is not readable XML", where=source, why=str(error), fix="save it as UTF-8"
        ) from error
    return top.children[0]
