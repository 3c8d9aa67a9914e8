"""YAML as people mean it: a small, closed part of the language, with the line of every key.

A profile says how much money may be spent, so what it means must not depend on YAML's surprises. PyYAML reads the
events; this file builds the data from them and refuses what a reader could get wrong: anchors, aliases and merge
keys (a 300-byte file can unfold to a million nodes), keys written twice (`usd: 5` and further down `usd: 5000`),
tags, several documents, deep nesting, large files, infinities.

Only true/false, null and plain decimal integers become something other than text. All else stays exactly the text
that was written: `no`, `on`, `010`, `1:30:00`, `2026-11-21`, and `0.92` too, because money is parsed from its
digits and never through a float. Keys are always text.

Every complaint is a RefusedError that begins with `file:line:`. This file knows nothing of profiles or playbooks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from provisioner.errors import RefusedError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_DIGITS = 18

Path = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# The separators besides \n and \r would make PyYAML's line numbers differ from the editor's.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_NAMES = {0: "a NUL character", 0xFEFF: "a byte-order mark", 0x2028: "a line separator", 0x2029: "a paragraph separator"}


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it. `data` is dict, list, str, int, bool or None."""

    name: str
    data: Any
    text: str = field(repr=False)
    lines: dict[Path, int] = field(repr=False)

    def line(self, path: Path = ()) -> int:
        """The 1-based line of a key or list item; of the nearest enclosing one when that path is not written."""
        path = tuple(path)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, path: Path = ()) -> str:
        """`file:line`, for the beginning of a complaint."""
        return f"{self.name}:{self.line(path)}"


def load(text: str | bytes, name: str) -> Document:
    """Read one document, or raise a RefusedError saying file, line, what was found and what was expected."""
    decoded = _decode(text, name)
    data, lines = _Builder(decoded, name).document()
    return Document(name, data, decoded, lines)


def shown(value: object, limit: int = 60) -> str:
    """A value as a complaint quotes it: on one line, short, and with nothing a terminal would obey."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    words = str(value) if isinstance(value, int) else repr(value[:limit] + "…" if isinstance(value, str) and len(value) > limit else value)
    return words


def _refuse(name: str, line: int, found: str, expected: str = "") -> NoReturn:
    raise RefusedError(
        f"{name}:{line}: {found}" + (f"; expected {expected}" if expected else ""),
        next="correct that line; gpulease show profiles, and gpulease show playbooks, have examples",
    )


def _decode(text: str | bytes, name: str) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        _refuse(name, 1, f"the file has {size} bytes", f"at most {MAX_BYTES}")
    if isinstance(text, bytes):
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            _refuse(name, 1, "the file is UTF-16", "UTF-8")
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            _refuse(name, line, f"byte 0x{error.object[error.start]:02x} is not UTF-8", "a file saved as UTF-8")
    if text.startswith("\ufeff"):
        _refuse(name, 1, "the file begins with a byte-order mark", "UTF-8 without one (in the editor: save as UTF-8, no BOM)")
    if hidden := _HIDDEN.search(text):
        code = ord(hidden.group())
        what = _NAMES.get(code, "a control character" if code < 0xA0 else "a character that is not text")
        _refuse(name, _line_of(text, hidden.start()), f"{what} (U+{code:04X})", "printable text")
    return text


def _line_of(text: str, at: int) -> int:
    return len(re.findall(r"\r\n|\r|\n", text[:at])) + 1


class _Builder:
    """One pass over PyYAML's events. Depth is checked before each step down, so that recursion is bounded."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.loader: Any = yaml.SafeLoader(text)
        self.lines: dict[Path, int] = {}

    def document(self) -> tuple[Any, dict[Path, int]]:
        self.next()  # stream start
        if isinstance(self.next(), yaml.StreamEndEvent):
            _refuse(self.name, 1, "the file is empty", "a YAML document")
        first = self.next()
        if isinstance(first, yaml.ScalarEvent) and not first.value and first.style is None and first.anchor is None and first.tag is None:
            _refuse(self.name, 1, "the document is empty", "some content after ---")
        self.lines[()] = self.at(first)
        data = self.node(first, (), 1)
        self.next()  # document end
        more = self.next()
        if not isinstance(more, yaml.StreamEndEvent):
            _refuse(self.name, self.at(more), "a second document begins here", "one document in a file")
        return data, self.lines

    def node(self, event: Any, path: Path, depth: int) -> Any:
        line = self.at(event)
        if isinstance(event, yaml.AliasEvent):
            _refuse(self.name, line, f"alias *{event.anchor}", "the value written out (anchors and aliases are not read)")
        if event.anchor is not None:
            _refuse(self.name, line, f"anchor &{event.anchor}", "a plain value (anchors and aliases are not read)")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, line)
        if depth > MAX_DEPTH:
            _refuse(self.name, line, f"nested more than {MAX_DEPTH} deep", f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            self.tag(event, line, "seq")
            return self.sequence(path, depth)
        self.tag(event, line, "map")
        return self.mapping(path, depth)

    def sequence(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.lines[here] = self.at(event)
            items.append(self.node(event, here, depth + 1))
        return items

    def mapping(self, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            key = self.key(event)
            here = (*path, key)
            if key in found:
                before = self.lines[here]
                _refuse(self.name, self.at(event), f"key {shown(key)} is written again (first on line {before})", "each key once")
            self.lines[here] = self.at(event)
            found[key] = self.node(self.next(), here, depth + 1)
        return found

    def key(self, event: Any) -> str:
        line = self.at(event)
        if not isinstance(event, yaml.ScalarEvent):
            if isinstance(event, yaml.AliasEvent):
                self.node(event, (), 1)
            _refuse(self.name, line, "a mapping or list is used as a key", "a word as key (quote a value that begins with { or [)")
        if event.anchor is not None or event.tag is not None:
            self.node(event, (), 1)
        key: str = event.value
        if hidden := _HIDDEN.search(key):
            _refuse(self.name, line, f"a character that is not text (U+{ord(hidden.group()):04X})", "a printable key")
        if event.style is None and key == "<<":
            _refuse(self.name, line, "merge key <<", "the keys written out (merge keys are not read)")
        if event.style is None and key in _NULL:
            _refuse(self.name, line, "an empty key", "a word before the colon")
        return key

    def scalar(self, event: Any, line: int) -> Any:
        text: str = event.value
        if hidden := _HIDDEN.search(text):  # written as an escape, "\\0"
            _refuse(self.name, line, f"a character that is not text (U+{ord(hidden.group()):04X})", "printable text")
        tag = self.tag(event, line, "str", "int", "bool", "null", "float")
        if event.style is not None and tag is None:
            return text
        if tag == "str":
            return text
        if _ENDLESS.fullmatch(text):
            _refuse(self.name, line, f"{text} is not a quantity", "a finite number (or the text in quotes)")
        value = self.plain(text, line)
        wanted = {"int": int, "bool": bool, "null": type(None)}.get(tag or "")
        if wanted is not None and type(value) is not wanted:
            _refuse(self.name, line, f"!!{tag} {shown(text)}", f"a value that is a YAML {tag}")
        return text if tag == "float" else value

    def plain(self, text: str, line: int) -> str | int | bool | None:
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            if len(text) > MAX_DIGITS:
                _refuse(self.name, line, f"a number of {len(text)} digits", f"at most {MAX_DIGITS} digits (or the text in quotes)")
            return int(text)
        return text

    def tag(self, event: Any, line: int, *allowed: str) -> str | None:
        """The core tag written out, if one was; PyYAML gives "!" for 'no special meaning', which is text."""
        if event.tag is None:
            return None
        short: str = event.tag.removeprefix(_CORE)
        if event.tag == "!":
            return allowed[0]
        if short not in allowed or short == event.tag:
            written = f"!!{short}" if short != event.tag else event.tag if event.tag.startswith("!") else f"!<{event.tag}>"
            _refuse(self.name, line, f"tag {shown(written)[1:-1]}", "a plain value (tags are not read)")
        return short

    def at(self, event: Any) -> int:
        return int(event.start_mark.line) + 1

    def next(self) -> Any:
        try:
            return self.loader.get_event()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            begun = line if error.context_mark is None else error.context_mark.line + 1
            self.unreadable(error.problem or str(error.context), line, begun)
        except (ValueError, OverflowError):  # PyYAML hands "\U00110000", "!%ff" and endless digits straight to chr, decode and int
            self.unreadable("an escape or a number is out of range", self.loader.line + 1, self.loader.line + 1)

    def unreadable(self, problem: str, line: int, begun: int) -> NoReturn:
        rows = re.split(r"\r\n|\r|\n", self.text)
        for number in (line, line - 1):
            if 0 < number <= len(rows) and re.match(r" *\t", rows[number - 1]):
                _refuse(self.name, number, "the line is indented with a tab", "spaces")
        hint = next((words for fragment, words in _HINTS.items() if fragment in problem), "")
        since = f" (in what begins on line {begun})" if begun != line else ""
        _refuse(self.name, min(line, len(rows)), f"not YAML: {problem}{since}", hint)


_HINTS = {
    "mapping values are not allowed": "quotes around a text that contains ': ', and the same indentation for all keys of a mapping",
    "could not find expected ':'": "key: value, with a space after the colon",
    "found character '@'": "quotes around a text that begins with @",
    "found character '`'": "quotes around a text that begins with a backtick",
    "found character '%'": "quotes around a text that begins with %",
    "but found ':'": "a word before the colon",
    "expected <block end>": "the same indentation for all keys of a mapping",
    "found unexpected end of stream": "a closing quote",
    "got '<stream end>'": "a closing bracket",
}
