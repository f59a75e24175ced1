"""Takes secrets out of text that leaves the machine: known values, and what looks like one by name or form. Pure.

Rather too much than too little: a word hidden in vain costs a reader little.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dynctl.plan.redact import HIDDEN

SHORTEST = 4
"""Shorter values are not looked for in text: they would be found everywhere. By name they are hidden all the same."""

_WORDS = (
    r"token(?!iz|s)|secret|passw(?:or)?d|passphrase|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key"
)
_NAME = rf"[\w.-]{{0,64}}(?:{_WORDS})[\w.-]{{0,64}}"
_VALUE = r"[\[(][^\])\n]*[\])]?|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s\"',;&)}\]]+"
_COUNT = re.compile(r"-?\d{1,12}(?:\.\d{0,6})?")
_FORMS = (
    # NAME=value, NAME: value, "NAME": "value"; --name value
    re.compile(rf"(?i)(?P<keep>(?<![\w.-]){_NAME}[\"']?\s{{0,4}}[=:]\s{{0,4}})(?P<value>{_VALUE})"),
    re.compile(rf"(?i)(?P<keep>(?<![\w.-])--?{_NAME}[\"']?,?\s{{1,4}})(?P<value>{_VALUE})"),
    re.compile(
        r"(?i)(?P<keep>\b(?:authorization|proxy-authorization|cookie|set-cookie|x-api-key)\b[\"']?\s*[:=]\s*[\"']?)(?P<value>[^\"'\r\n]+)"
    ),
    re.compile(r"(?i)(?P<keep>\b(?:bearer|basic)\s+)(?P<value>[\w.~+/=-]{8,})"),
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{0,16}://)(?P<value>[^\s/@\"']{1,512})(?=@)"),
    re.compile(r"(?i)(?P<keep>[?&](?:sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+)=)(?P<value>[^\s&\"']+)"),
    re.compile(
        r"(?P<keep>)(?P<value>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))", re.DOTALL
    ),
    # by their issuers' forms
    re.compile(
        r"(?P<keep>)(?P<value>\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|nvapi-[\w-]{16,}|gh[opusr]_[A-Za-z0-9]{20,}"
        r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}"
        r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?))"
    ),
)


class Scrubber:
    """Hides secrets in text. `values`: those that are known, in whatever place they turn up."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        longest_first = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)
        parts = [re.escape(form) for value in longest_first for form in dict.fromkeys((value, _in_json(value)))]
        self._known = re.compile("|".join(parts)) if parts else None

    def text(self, text: str) -> str:
        """The text without what is known to be, or looks like, a secret."""
        if self._known:
            text = self._known.sub(HIDDEN, text)
        for form in _FORMS:
            text = form.sub(_hide, text)
        return text

    def document(self, value: object) -> object:
        """The same for a document of dicts, lists and scalars: by the names of its keys, too, and flags in lists."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._under(str(key), found) for key, found in value.items()}
        if isinstance(value, (list, tuple)):
            hidden = {at for at, _ in secret_arguments(value)}
            return [HIDDEN if at in hidden else self.document(found) for at, found in enumerate(value)]
        return self.text(value) if isinstance(value, str) else value

    def _under(self, key: str, value: object) -> object:
        if not is_secret_name(key):
            return self.document(value)
        if isinstance(value, (list, tuple)):
            return [self._under(key, part) for part in value]
        if isinstance(value, str):
            return self.text(value) if value.startswith("/") or not value else HIDDEN
        return HIDDEN if isinstance(value, (int, float)) and not _is_count(key, str(value)) else self.document(value)


def is_secret_name(name: str) -> bool:
    """Whether what is called so is a secret: a variable, a key, a flag."""
    return bool(re.search(f"(?i){_WORDS}", name)) and not re.search(r"(?i)[_-](file|path|dir)$", name)


def found_secrets(value: object) -> Iterator[str]:
    """Every secret in a document, by the names of its keys and by flags in its lists."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if is_secret_name(str(key)):
                yield from (text for text in _texts(part) if not text.startswith("/") and not _is_count(str(key), text))
            else:
                yield from found_secrets(part)
    elif isinstance(value, (list, tuple)):
        yield from (text for _, text in secret_arguments(value))
        for part in value:
            yield from found_secrets(part)


def secret_arguments(argv: Sequence[object]) -> Iterator[tuple[int, str]]:
    """Place and value of arguments that follow a secret's flag: `--api-key X`."""
    for at, (flag, value) in enumerate(itertools.pairwise(argv), start=1):
        if not (isinstance(flag, str) and isinstance(value, str) and re.fullmatch(r"--?[\w.-]+", flag)):
            continue
        if is_secret_name(flag) and not value.startswith(("-", "/")):
            yield at, value


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of variables whose names are those of secrets; paths to secrets are none."""
    return [value for name, value in environment.items() if is_secret_name(name) and not value.startswith("/")]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _hide(found: re.Match[str]) -> str:
    value = found["value"]
    bare = value.strip("\"'")
    if bare.startswith("/") or bare in ("", HIDDEN, "null", "None", "true", "false", "True", "False"):
        return found[0]
    if _is_count(found["keep"], bare) or re.search(r"(?i)[_-](file|path|dir)[\"']?\s*[=:,]?\s*$", found["keep"]):
        return found[0]
    quote = value[0] if value[0] in "\"'" and value[-1] == value[0] else ""
    return f"{found['keep']}{quote}{HIDDEN}{quote}"


def _is_count(name: str, value: str) -> bool:
    """`eos_token_id: 2` is a number of the model's, no secret."""
    return "token" in name.lower() and bool(_COUNT.fullmatch(value))


def _in_json(value: str) -> str:
    """As it stands within a JSON string."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
