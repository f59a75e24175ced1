"""A container's command line, read back: which module runs, and with which flags."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from dynctl.engines.base import flag_name
from dynctl.export.cursor import Cursor

_QUOTED = re.compile(r"'[^']*'|\"[^\"$`\\]*\"")
_SHELL = re.compile(r"[$`|&;<>(){}\n*?~#\\]")
"""What a shell acts on, outside quotes."""
_FLAG = re.compile(r"--?[A-Za-z]")


class Word(NamedTuple):
    """One word, and where it was written."""

    text: str
    at: Cursor


class Flag(NamedTuple):
    """A flag without its dashes; `value` None where it stands alone. `at`: its words."""

    name: str
    value: str | None
    at: tuple[Cursor, ...]

    def done(self) -> None:
        """It was taken over."""
        for cursor in self.at:
            cursor.done()

    def leave(self, why: str) -> None:
        """It is left out."""
        for cursor in self.at[:1]:
            cursor.leave(f"`--{self.name}`: {why}")
        for cursor in self.at[1:]:
            cursor.done()


def command_line(container: Cursor) -> tuple[Word, ...]:
    """`command` and `args` as one; `sh -c` around a single command is looked through."""
    words = [Word(item.text() or "", item) for key in ("command", "args") for item in container.get(key).items()]
    for at, word in enumerate(words[:3]):
        if at and word.text in ("-c", "-lc", "-ec") and words[0].text.rsplit("/", 1)[-1] in ("sh", "bash"):
            return tuple(_unwrapped(words[at + 1 :], word.at))
    return tuple(words)


def _unwrapped(rest: list[Word], shell: Cursor) -> Iterator[Word]:
    if len(rest) != 1:
        raise shell.wrong("starts a shell, but not with one script", "write the engine's command and args as lists")
    (script,) = rest
    text = script.text.replace("\\\n", " ").strip()
    if _SHELL.search(_QUOTED.sub("", text)):
        raise script.at.wrong(
            "is a shell script",
            "write the engine's command and args as lists",
            why="what a script runs is known only when it runs",
        )
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise script.at.wrong(f"can't be taken apart: {error}", "mend its quotes") from None
    for word in words[words[:1] == ["exec"] :]:
        yield Word(word, script.at)


def module_of(words: tuple[Word, ...]) -> str | None:
    """What `python3 -m` runs."""
    for flag, module in itertools.pairwise(words):
        if flag.text == "-m":
            return module.text
    return None


def flags_of(words: tuple[Word, ...]) -> Iterator[Flag]:
    """The flags after the module. What is neither a flag nor its value is left out."""
    at = next((i + 2 for i, word in enumerate(words) if word.text == "-m"), 0)
    for word in words[: max(0, at - 3)]:
        word.at.leave(f"`{word.text}`: what stands before the interpreter")
    while at < len(words):
        word = words[at]
        at += 1
        if not _FLAG.match(word.text):
            word.at.leave(f"`{word.text}`: a further value or an argument without a flag")
            continue
        name, equals, value = word.text.lstrip("-").partition("=")
        if equals:
            yield Flag(flag_name(name), value, (word.at,))
        elif at < len(words) and not _FLAG.match(words[at].text):
            yield Flag(flag_name(name), words[at].text, (word.at, words[at].at))
            at += 1
        else:
            yield Flag(flag_name(name), None, (word.at,))
