"""YAML text to a tree of nodes, safely: no tags, and bounds on size, depth and what aliases expand to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import yaml

from dynctl.errors import UsageError
from dynctl.topology.nodes import Entry, Map, Node, Place, Scalar, Seq, scalar_value, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 100_000

T = TypeVar("T")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})
_SPECIFIC_FIX = {
    "while parsing a flow": "close the bracket or brace that is still open, and put a comma between items",
    "mapping values are not allowed": "put a value that contains `: ` in quotes, and check the indentation above",
    "expected ':'": "every key needs a colon and a space after it: `key: value`",
    "cannot start any token": "put a value that starts with a special character (@, `, %, &, *) in quotes",
    "end of stream": "close the bracket, brace or quote that is still open",
    "did not find expected": "check the indentation: keys of one mapping start in the same column",
}


class _Built(NamedTuple):
    """A node, how many nodes it stands for once aliases are expanded, and how deep it is."""

    node: Node
    size: int
    height: int


def decode(raw: bytes, source: str) -> str:
    """The text of a file; UsageError when it is too big, binary or not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise too_big(source)
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise UsageError(
            "this is not a text file",
            where=str(Place(source, line)),
            why="it contains a NUL byte; a topology is YAML in UTF-8",
            fix="name a topology file; `dynctl init` writes one",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            "this is not UTF-8 text",
            where=str(Place(source, raw[: error.start].count(b"\n") + 1)),
            why=f"byte {error.start} (0x{raw[error.start]:02x}) is not valid UTF-8; a topology is YAML in UTF-8",
            fix="save the file as UTF-8, or name a topology file",
        ) from None


def too_big(source: str) -> UsageError:
    """The error for a file over the limit."""
    return UsageError(
        "this file is too big for a topology",
        where=str(Place(source, 1)),
        why=f"a topology is at most {MAX_BYTES >> 20} MiB",
        fix="name a topology file; `dynctl init` writes one",
    )


def compose_document(text: str, source: str) -> Map:
    """The tree of a whole topology file; UsageError with file and line for everything that is wrong with the YAML."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise too_big(source)
    node = _compose(text, lambda line: Place(source, line))
    if node is None:
        raise UsageError(
            "this topology is empty",
            where=str(Place(source, 1)),
            why="it has no keys; at least schema, name, model, engine and roles are needed",
            fix="`dynctl init` writes a topology that fits this machine",
        )
    if not isinstance(node, Map):
        raise UsageError(
            "this is not a topology",
            where=str(node.place),
            why=f"the top level is a {'list' if isinstance(node, Seq) else 'single value'}, not `key: value` lines",
            fix="start with `schema: 1`; `dynctl init` writes a whole example",
        )
    return node


def compose_documents(text: str, source: str) -> tuple[Node, ...]:
    """The trees of all documents of a file that may hold several, under one bound; empty documents are left out."""
    return _safely(text, lambda line: Place(source, line), lambda composer: tuple(composer.documents()))


def compose_value(text: str, place: Place) -> Node:
    """The tree of one value given on the command line; empty text is null."""
    node = _compose(text, lambda _line: place)
    return Scalar("", plain=True, place=place) if node is None else node


def _compose(text: str, place: Callable[[int], Place]) -> Node | None:
    return _safely(text, place, lambda composer: composer.document())


def _safely(text: str, place: Callable[[int], Place], read: Callable[[_Composer], T]) -> T:
    if bad := _UNPRINTABLE.search(text):
        raise UsageError(
            f"control character U+{ord(bad[0]):04X} in the text",
            where=str(place(text[: bad.start()].count("\n") + 1)),
            why="YAML allows printable characters only",
            fix="remove the character, or name a topology file",
        )
    try:
        return read(_Composer(text, place))
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, place) from None


def _syntax_error(error: yaml.YAMLError, text: str, place: Callable[[int], Place]) -> UsageError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = int(mark.line) + 1 if mark else 1
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    context = getattr(error, "context", None)
    lines = text.split("\n")
    for near in (line, line - 1):
        if 0 < near <= len(lines) and "\t" in lines[near - 1][: len(lines[near - 1]) - len(lines[near - 1].lstrip())]:
            return UsageError(
                "a tab is used for indentation",
                where=str(place(near)),
                why="YAML allows only spaces there",
                fix="replace the tab by spaces (two per level)",
            )
    fix = next(
        (fix for words, fix in _SPECIFIC_FIX.items() if words in f"{problem} {context}"),
        "check indentation, colons and quotes",
    )
    return UsageError(
        "this is not valid YAML",
        where=str(place(min(line, len(lines)))),
        why=f"{problem} ({context})" if context else problem,
        fix=fix,
    )


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and scalar_value(node) is None


class _Composer:
    """Builds nodes from the parser's events, so that every bound holds before anything is built."""

    def __init__(self, text: str, place: Callable[[int], Place]) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._place = place
        self._anchors: dict[str, _Built | None] = {}
        self._nodes = 0

    def document(self) -> Node | None:
        """The only document of the stream; None when there is none."""
        found = self._documents()
        first = next(found, None)
        if first is not None and (after := next(found, None)) is not None:
            raise self._wrong(
                after[0], "there is a second document", "a topology is one document", "remove what follows `---`"
            )
        return None if first is None or _is_empty(first[1]) else first[1]

    def documents(self) -> Iterator[Node]:
        """All that are not empty."""
        return (node for _, node in self._documents() if not _is_empty(node))

    def _documents(self) -> Iterator[tuple[Any, Node]]:
        """Each with the event that it begins with. Anchors are a document's own."""
        next(self._events)
        while not isinstance(begin := next(self._events), yaml.StreamEndEvent):
            self._anchors = {}
            yield begin, self._node(next(self._events), 1).node
            next(self._events)

    def _node(self, event: Any, depth: int) -> _Built:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        self._check_tag(event)
        self._spend(event, 1, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.MappingStartEvent):
            built = self._mapping(event, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self._sequence(event, depth)
        else:
            built = _Built(self._scalar(event), 1, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _scalar(self, event: Any) -> Scalar:
        text: str = event.value
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise self._wrong(
                event, "a value contains a NUL character or half a character", "no key takes one", "remove it"
            )
        plain = not event.style and event.tag is None
        return Scalar(text, plain=plain, place=self._at(event))

    def _sequence(self, event: Any, depth: int) -> _Built:
        parts: list[_Built] = []
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            parts.append(self._node(item, depth + 1))
        node = Seq(tuple(part.node for part in parts), self._at(event))
        return _Built(node, 1 + sum(p.size for p in parts), 1 + max((p.height for p in parts), default=0))

    def _mapping(self, event: Any, depth: int) -> _Built:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        size, height, merges = 1, 0, 0
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            key = self._key(key_event)
            value = self._node(next(self._events), depth + 1)
            size, height = size + value.size, max(height, value.height)
            if key == "<<" and not key_event.style:
                merges += 1
                merged = self._merge(key_event, value.node)
            if key in entries or merges > 1:
                first = f", first on line {entries[key].key_place.line}" if key in entries else ""
                raise self._wrong(
                    key_event,
                    f"the key `{shown(key)}` is written twice{first}",
                    "only one of them could count",
                    "remove one of the two",
                )
            if key != "<<":
                entries[key] = Entry(self._at(key_event), value.node)
        return _Built(Map({**merged, **entries}, self._at(event)), size, 1 + height)

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._wrong(
                event, "a key is not plain text", "lists, mappings and aliases can't be keys", "write `key: value`"
            )
        self._check_tag(event)
        self._spend(event, 1, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Built(self._scalar(event), 1, 1)
        return self._scalar(event).text

    def _merge(self, event: Any, node: Node) -> dict[str, Entry]:
        out: dict[str, Entry] = {}
        for source in node.items if isinstance(node, Seq) else (node,):
            if not isinstance(source, Map):
                raise self._wrong(
                    event, "`<<` merges mappings only", "its value is something else", "give it an alias of a mapping"
                )
            out = {**source.entries, **out}
        return out

    def _alias(self, event: Any, depth: int) -> _Built:
        if event.anchor not in self._anchors:
            raise self._wrong(
                event,
                f"`*{shown(event.anchor)}` has no anchor",
                "an alias refers to an `&name` above it",
                "add the anchor",
            )
        built = self._anchors[event.anchor]
        if built is None:
            raise self._wrong(event, f"`*{shown(event.anchor)}` contains itself", "that has no end", "remove the alias")
        self._spend(event, built.size, depth + built.height - 1)
        return built

    def _spend(self, event: Any, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            why = f"with its aliases expanded it has more than {MAX_NODES} values"
            raise self._wrong(event, "this file is too big for a topology", why, "write fewer or smaller aliases")
        if depth > MAX_DEPTH:
            raise self._wrong(event, "this file is nested too deeply", f"the limit is {MAX_DEPTH} levels", "flatten it")

    def _check_tag(self, event: Any) -> None:
        if event.tag not in _TEXT_TAGS:
            raise self._wrong(
                event, f"the YAML tag {shown(event.tag)} is not allowed", "a topology is plain data", "remove the tag"
            )

    def _at(self, event: Any) -> Place:
        return self._place(int(event.start_mark.line) + 1)

    def _wrong(self, event: Any, cause: str, why: str, fix: str) -> UsageError:
        return UsageError(cause, where=str(self._at(event)), why=why, fix=fix)
