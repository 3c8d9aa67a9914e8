"""Right or wrong: pure functions of (text, check), with no floats, no clock and no model.

A case is right when every one of its checks passes; a sample with an error is wrong and counted. What every check
looks at is the *answer*: the text after a leading `<think>...</think>` (a model that never stops thinking has not
answered), at most 16384 characters; a longer answer is wrong. `normal` text is NFKC (full-width becomes half-width),
case-folded, with runs of white space as one space.

    exact        {value} or {any: [...]}: the normal answer, without the quotes, stars, brackets and final
                 punctuation around it, is one of the values
    contains     {value} or {any: [...]}, {none: [...]}: a value occurs, none of the others does. At an ASCII letter or
                 digit a value ends: "cat" is not in "concatenate". Chinese has no such edges
    regex        {pattern}: found anywhere in the NFKC answer; the language of pattern.py, letter case ignored
    number       {value, tolerance}: the answer's number (see numbers.py for which) differs by at most the tolerance
    choice       {options, value, aliases}: the one option named, by itself or by an alias. Looked for in the first
                 line, else after the last "answer is" or its like, else in everything; two options are no choice.
                 A single Latin letter counts only in upper case, unless it is the whole answer
    json_schema  {schema}: the answer's JSON (see schema.py for where it may stand) is what the schema asks for
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from provisioner.evals import numbers, pattern, schema
from provisioner.evals.cases import Case
from provisioner.evals.samples import Sample

MAX_ANSWER = 16384  # characters
Check = Mapping[str, Any]

_AROUND = " \t\n\"'`*_.,;:!?()[]{}<>«»\u201c\u201d\u2018\u2019「」『』《》。、"  # of normal text, in which full-width forms are gone
_MARK = re.compile(r"(?:answer(?: is|:)|option(?: is|:)|choice(?: is|:)|答案(?:是|为|:)|选择?)[\s*:\"'(]*")


@dataclass(frozen=True)
class Checked:
    type: str
    ok: bool
    why: str = ""  # why not, when not
    json: bool | None = None  # json_schema only: was it JSON at all?

    def public(self) -> dict[str, Any]:
        said: dict[str, Any] = {"type": self.type, "ok": self.ok, "why": self.why}
        return said if self.json is None else {**said, "json": self.json}


@dataclass(frozen=True)
class Score:
    case: str
    n: int
    vantage: str
    ok: bool
    checks: tuple[Checked, ...]

    def public(self) -> dict[str, Any]:
        return {"case": self.case, "n": self.n, "vantage": self.vantage, "ok": self.ok, "checks": [c.public() for c in self.checks]}


def scores(cases: Iterable[Case], samples: Iterable[Sample]) -> list[Score]:
    """One score per measured sample (warm-up left out), in the samples' order. A sample of a case we did not ask for is wrong."""
    known = {case.id: case for case in cases}
    return [score(known.get(sample.case) or Case(sample.case, (), ()), sample) for sample in samples if not sample.warmup]


def score(case: Case, sample: Sample) -> Score:
    checks = tuple(_failed(one, sample.error) if sample.error else check(sample.text, one) for one in case.checks)
    return Score(sample.case, sample.n, sample.vantage, bool(checks) and all(one.ok for one in checks), checks)


def check(text: str, one: Check) -> Checked:
    """One check of one text. The check has been through `cases.load`, which refuses what is malformed."""
    said = answer(text)
    if said is None:
        return _failed(one, "no answer: the model was still thinking")
    if len(said) > MAX_ANSWER:
        return _failed(one, f"the answer has {len(said)} characters; at most {MAX_ANSWER} are scored")
    return _CHECKS[one["type"]](said, one)


def answer(text: str) -> str | None:
    """The text without a leading block of thought; None when the thought never ends."""
    text = text.strip()
    if "</think>" in text:
        return text.rpartition("</think>")[2].strip()
    return None if text.startswith("<think>") else text


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bare(text: str) -> str:
    """Normal text without what people put around a short answer."""
    return normal(text).strip(_AROUND)


def occurs(value: str, text: str) -> bool:
    """Does the value stand in the text by itself? Both normal already."""
    return any(True for _ in _places(value, text))


def _exact(said: str, one: Check) -> Checked:
    ok = bare(said) in [bare(value) for value in _values(one)]
    return Checked("exact", ok, "" if ok else f"the answer is {_short(said)}")


def _contains(said: str, one: Check) -> Checked:
    text = normal(said)
    wanted, refused = _values(one), [value for value in one.get("none") or [] if occurs(normal(value), text)]
    if wanted and not any(occurs(normal(value), text) for value in wanted):
        return Checked("contains", False, f"{' and '.join(map(repr, wanted))} not found in {_short(said)}")
    return Checked("contains", not refused, f"{refused[0]!r} found" if refused else "")


def _regex(said: str, one: Check) -> Checked:
    ok = pattern.search(one["pattern"], unicodedata.normalize("NFKC", said))
    return Checked("regex", ok, "" if ok else f"no match in {_short(said)}")


def _number(said: str, one: Check) -> Checked:
    got = numbers.answer(said)
    if got is None:
        return Checked("number", False, f"no number in {_short(said)}")
    ok = abs(got - numbers.exact(one["value"])) <= numbers.exact(one.get("tolerance") or "0")
    return Checked("number", ok, "" if ok else f"the number is {str(got)[:60]}; needs {one['value']}")


def _choice(said: str, one: Check) -> Checked:
    text = unicodedata.normalize("NFKC", said)
    aliases = one.get("aliases") or {}
    named = {option: [option, *aliases.get(option, [])] for option in one["options"]}
    for part in (text.strip().splitlines() or [""])[0], _after_mark(text), text:
        chosen = _options(part, named)
        if len(chosen) == 1:
            ok = chosen == {one["value"]}
            return Checked("choice", ok, "" if ok else f"chose {next(iter(chosen))!r}; needs {one['value']!r}")
    return Checked("choice", False, f"{'more than one option' if chosen else 'no option'} in {_short(said)}")


def _json_schema(said: str, one: Check) -> Checked:
    try:
        value = schema.parse(said)
    except schema.NotJson as fault:
        return Checked("json_schema", False, f"not JSON: {fault}", json=False)
    found = schema.violation(value, one["schema"])
    return Checked("json_schema", found is None, found or "", json=True)


_CHECKS: dict[str, Callable[[str, Check], Checked]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "number": _number,
    "choice": _choice,
    "json_schema": _json_schema,
}


def _failed(one: Check, why: str) -> Checked:
    return Checked(one["type"], False, why, json=False if one["type"] == "json_schema" else None)


def _values(one: Check) -> list[str]:
    return [one["value"]] if one.get("value") is not None else list(one.get("any") or [])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")


def _places(value: str, text: str) -> Iterable[tuple[int, int]]:
    """Where a value stands by itself: an ASCII letter or digit at its edge has no ASCII letter or digit beside it."""
    at = text.find(value) if value else -1
    while at >= 0:
        end = at + len(value)
        if not (_ascii(value[0]) and _ascii(text[at - 1 : at])) and not (_ascii(value[-1]) and _ascii(text[end : end + 1])):
            yield at, end
        at = text.find(value, at + 1)


def _ascii(char: str) -> bool:
    return char.isascii() and char.isalnum()


def _after_mark(text: str) -> str:
    """The line that follows the last "the answer is" or its like."""
    last = None
    for last in _MARK.finditer(text.casefold()):  # noqa: B007 - only the last is wanted
        pass
    # Case-folding can change a text's length; then the mark's place is not trusted.
    return text[last.end() :].split("\n")[0] if last and len(text.casefold()) == len(text) else ""


def _options(text: str, named: Mapping[str, list[str]]) -> set[str]:
    """The options that a text names. Longer names are looked for first, and what they cover names nothing else."""
    whole, folded = bare(text), " ".join(text.casefold().split())
    plain, covered, found = " ".join(text.split()), [False] * (len(folded) + 1), set[str]()
    for name, option in sorted(((n, o) for o, names in named.items() for n in names), key=lambda pair: -len(pair[0])):
        key = unicodedata.normalize("NFKC", name)
        if whole == bare(key):
            return {option}
        letter = len(key) == 1 and _ascii(key) and key.isalpha()
        # A single letter is compared as it is: "a" is an article, "A" is a label.
        haystack, needle = (plain, key.upper()) if letter and len(plain) == len(folded) else (folded, " ".join(key.casefold().split()))
        for begin, end in _places(needle, haystack):
            if not any(covered[begin:end]):
                covered[begin:end] = [True] * (end - begin)
                found.add(option)
    return found
