"""A walk over a YAML tree that remembers what was read, so that everything else can be named afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dynctl.errors import UsageError
from dynctl.topology.nodes import Map, Node, Path, Place, Scalar, Seq, dotted, scalar_value


class Left(NamedTuple):
    """A field that was not taken over: its path, where it was written, and why."""

    path: str
    place: Place
    why: str


class Cursor:
    """One value of the tree and its place in it. All cursors of a tree share the record of what was read."""

    def __init__(self, node: Node, path: Path = (), read: dict[Path, str] | None = None) -> None:
        self.node = node
        self.path = path
        self._read = {} if read is None else read

    def __bool__(self) -> bool:
        return not (isinstance(self.node, Scalar) and scalar_value(self.node) is None)

    def get(self, key: str) -> Cursor:
        """The value of a key; a cursor that is false where there is none. UsageError where this is no mapping."""
        if isinstance(self.node, Map) and key in self.node.entries:
            return Cursor(self.node.entries[key].node, (*self.path, key), self._read)
        if self and not isinstance(self.node, Map):
            raise self.wrong("must be a mapping", "write `key: value` lines")
        return Cursor(Scalar("", plain=True, place=self.node.place), (*self.path, key), self._read)

    def at(self, *keys: str) -> Cursor:
        """The value further down."""
        found = self
        for key in keys:
            found = found.get(key)
        return found

    def names(self) -> tuple[str, ...]:
        """The keys of a mapping."""
        if self and not isinstance(self.node, Map):
            raise self.wrong("must be a mapping", "write `key: value` lines")
        return tuple(self.node.entries) if isinstance(self.node, Map) else ()

    def items(self) -> Iterator[Cursor]:
        """Of a list; none where there is nothing."""
        if self and not isinstance(self.node, Seq):
            raise self.wrong("must be a list", "write `- ` before each item")
        for index, item in enumerate(self.node.items if isinstance(self.node, Seq) else ()):
            yield Cursor(item, (*self.path, index), self._read)

    def text(self) -> str | None:
        """A single value as it is spelled, read with this; None where there is none."""
        if not self:
            return None
        if not isinstance(self.node, Scalar):
            raise self.wrong("must be a single value", "write it on one line")
        self.done()
        return self.node.text

    def peek(self) -> str | None:
        """A single value as it is spelled, not read with this; None where there is none, or something else."""
        return self.node.text if self and isinstance(self.node, Scalar) else None

    def count(self, least: int, default: int) -> int:
        """A whole number, quoted or not, read with this."""
        text = self.text()
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 7) or int(text) < least:
            raise self.wrong(f"must be a whole number from {least}", f"for example `{max(least, 1)}`")
        return int(text)

    def done(self) -> None:
        """This value, and all that is in it, was taken over or says nothing."""
        self._read.setdefault(self.path, "")

    def leave(self, why: str) -> None:
        """This value, and all that is in it, is left out for that reason, or a part of it for one more."""
        self._read[self.path] = "; ".join(filter(None, (self._read.get(self.path), why)))

    @property
    def where(self) -> str:
        """FILE:LINE path."""
        return f"{self.node.place} {dotted(self.path)}".rstrip()

    def wrong(self, cause: str, fix: str, why: str | None = None) -> UsageError:
        """An error about this value."""
        subject = f"`{dotted(self.path)}`" if self.path else "this document"
        return UsageError(f"{subject} {cause}", where=self.where, why=why, fix=fix)

    def left(self, why: str) -> Iterator[Left]:
        """What of this value was not read, the largest whole parts of it; `why`, unless another reason was given."""
        if (said := self._read.get(self.path)) is not None:
            if said:
                yield Left(dotted(self.path), self.node.place, said)
            return
        if isinstance(self.node, Scalar) or not any(path[: len(self.path)] == self.path for path in self._read):
            if self:
                yield Left(dotted(self.path), self.node.place, why)
            return
        children = (self.get(key) for key in self.names()) if isinstance(self.node, Map) else self.items()
        for child in children:
            yield from child.left(why)
