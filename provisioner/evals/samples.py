"""The client's lines, read as what they are: text from a machine that is not ours.

A line is a header, a sample or a footer; anything else is junk, counted and kept short, and never an exception: a
machine that prints a warning into the stream must not lose the samples around it. A sample is believed about its
times (nothing else could measure them) but not about its form: every field has its type and its bounds, stamps follow
one another, and the vantage is the one that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MAX_LINE = 16 << 20
MAX_SAMPLES = 1_000_000
_NS = 1 << 62
_TEXTS = ("case", "vantage", "text", "finish", "error")


class NotSample(ValueError):
    """The line is not one of the client's, and why."""


@dataclass(frozen=True, slots=True)
class Sample:
    case: str
    n: int  # its place in the plan of the run, warm-up included
    vantage: str
    warmup: bool
    intended_ns: int  # closed loop: when it was sent; open loop: when it was due
    connect_ns: int  # a duration; the connection was opened before the clock started
    sent_ns: int
    first_ns: int | None
    chunks: tuple[tuple[int, int], ...]  # (when, characters) of everything generated, in order
    done_ns: int
    status: int | None
    finish: str | None
    text: str
    tokens_in: int | None
    tokens_out: int | None
    error: str | None  # "code: words"

    @property
    def code(self) -> str | None:
        return None if self.error is None else self.error.partition(":")[0]

    def public(self) -> dict[str, Any]:
        return {**asdict(self), "chunks": [list(chunk) for chunk in self.chunks]}


@dataclass
class Samples:
    """One pass of the client, from one vantage. `feed` is what a line callback calls."""

    vantage: str
    header: dict[str, Any] | None = None
    samples: list[Sample] = field(default_factory=list)
    footer: dict[str, Any] | None = None
    junk: int = 0
    first_junk: str = ""
    taken_back: bool = False  # its machine was taken away by the provider; what failed then says nothing about the model
    machine: int = 0  # which one of the run's, by whose clock its stamps are

    def feed(self, line: str) -> Sample | None:
        """Take a line; give back the sample in it, if it is one that is to be kept."""
        try:
            document = _document(line)
            if set(document) == {"header"} and self.header is None:
                self.header = _plain(document["header"])
            elif set(document) == {"footer"} and self.footer is None:
                self.footer = _plain(document["footer"])
            else:
                one = sample(document)
                if one.vantage != self.vantage:
                    raise NotSample(f"its vantage is not {self.vantage}")
                if len(self.samples) >= MAX_SAMPLES:
                    raise NotSample(f"more than {MAX_SAMPLES} samples")
                self.samples.append(one)
                return one
        except NotSample as fault:
            self.junk += 1
            self.first_junk = self.first_junk or f"{fault}: {line[:80]!a}"
        return None

    def unasked(self, one: Sample) -> bool:
        """Did it fail because the machine was taken away? Not where a request sent after it was still answered: that was the server's."""
        answered = max((s.sent_ns for s in self.samples if s.error is None), default=-1)
        return self.taken_back and one.error is not None and one.done_ns > answered

    @property
    def whole(self) -> bool:
        """Did the client itself end the pass, with everything planned sent and nothing lost on the way?"""
        foot = self.footer or {}
        return foot.get("sent") == foot.get("planned") == len(self.samples) and foot.get("stopped") is None and self.footer is not None


def joined(parts: Sequence[Samples]) -> list[Sample]:
    """Of all parts as on one clock: each machine's stamps are moved so that they follow those of the machine before it.

    Stamps of two machines say nothing about each other, and a rate over both would be any number at all.
    """
    found: list[Sample] = []
    for machine in dict.fromkeys(part.machine for part in parts):
        own = [s for part in parts if part.machine == machine for s in part.samples]
        by = max(s.done_ns for s in found) - min(s.intended_ns for s in own) if found and own else 0
        found += [_moved(s, by) for s in own] if by else own
    return found


def _moved(one: Sample, by: int) -> Sample:
    return replace(
        one,
        intended_ns=one.intended_ns + by,
        sent_ns=one.sent_ns + by,
        first_ns=None if one.first_ns is None else one.first_ns + by,
        chunks=tuple((at + by, size) for at, size in one.chunks),
        done_ns=one.done_ns + by,
    )


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Without the failures of cases that were asked again later, from the same vantage: the last time is the one that counts.

    A case is asked again only when the machine was taken away under it, so nothing that the model did is dropped.
    """
    last = {(s.vantage, s.case): place for place, s in enumerate(samples) if not s.warmup}
    return [s for place, s in enumerate(samples) if s.warmup or s.error is None or last[s.vantage, s.case] == place]


def read(lines: Iterable[str]) -> list[Sample]:
    """The samples of a stored samples.jsonl (headers and footers are passed over). Raises NotSample with the line."""
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = _document(line)
            if not set(document) & {"header", "footer"}:
                found.append(sample(document))
        except NotSample as fault:
            raise NotSample(f"line {number}: {fault}") from None
    return found


def sample(document: dict[str, Any]) -> Sample:
    """A sample from its JSON, or NotSample."""
    names = Sample.__slots__
    if set(document) != set(names):
        raise NotSample("not the keys of a sample")
    chunks = document["chunks"]
    if not isinstance(chunks, list) or not all(isinstance(c, list) and len(c) == 2 and _whole(c[0]) and _whole(c[1]) for c in chunks):
        raise NotSample("chunks are not pairs of whole numbers")
    for name in ("n", "intended_ns", "connect_ns", "sent_ns", "done_ns"):
        if not _whole(document[name]):
            raise NotSample(f"{name} is not a whole number")
    for name in ("first_ns", "status", "tokens_in", "tokens_out"):
        if document[name] is not None and not _whole(document[name]):
            raise NotSample(f"{name} is not a whole number or null")
    for name, size in (("case", 64), ("vantage", 16), ("text", 1 << 20)):
        if not isinstance(document[name], str) or len(document[name]) > size:
            raise NotSample(f"{name} is not a text of at most {size} characters")
    for name, size in (("finish", 64), ("error", 512)):
        if document[name] is not None and (not isinstance(document[name], str) or len(document[name]) > size):
            raise NotSample(f"{name} is not a text of at most {size} characters or null")
    if not isinstance(document["warmup"], bool):
        raise NotSample("warmup is not true or false")
    if any("\ud800" <= char <= "\udfff" for name in _TEXTS for char in document[name] or ""):
        raise NotSample("a text that is not Unicode")
    made = Sample(**{**document, "chunks": tuple((c[0], c[1]) for c in chunks)})
    stamps = [c[0] for c in made.chunks]
    if made.first_ns != (stamps[0] if stamps else None) or stamps != sorted(stamps) or (stamps and stamps[-1] > made.done_ns):
        raise NotSample("stamps that do not follow one another")
    if made.error is None and not stamps:
        raise NotSample("neither an error nor any content")
    if made.sent_ns < made.intended_ns or made.done_ns < made.sent_ns or (stamps and stamps[0] < made.sent_ns):
        raise NotSample("stamps that do not follow one another")
    return made


def _document(line: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise NotSample(f"a line of more than {MAX_LINE} characters")
    try:
        document = json.loads(line, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotSample("not JSON") from None
    if not isinstance(document, dict):
        raise NotSample("not an object")
    return document


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise NotSample("a number that is too long")
    return int(digits)


def _refuse(name: str) -> Any:
    raise NotSample(f"{name} is not a number")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _NS


def _plain(document: Any) -> dict[str, Any]:
    """A header or footer: short keys, plain values, and one level of counts for the limits."""
    if not isinstance(document, dict) or len(document) > 40:
        raise NotSample("a header or footer of another shape")
    kept: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and len(value) <= 40 and all(_whole(v) for v in value.values()):
            kept[_printable(key, 40)] = {_printable(name, 40): number for name, number in value.items()}
        elif value is None or isinstance(value, bool | int):
            kept[_printable(key, 40)] = value
        elif isinstance(value, str):
            kept[_printable(key, 40)] = _printable(value, 200)
        else:
            raise NotSample("a header or footer of another shape")
    return kept


def _printable(text: str, limit: int) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:limit])
