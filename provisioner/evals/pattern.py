"""Regular expressions that always end: a documented subset, searched in time linear in the text.

The text an eval check looks at comes from a rented machine, and Python's `re` can take longer than the universe for
an innocent pattern and a chosen text. Here a pattern becomes a small automaton (Thompson's construction) whose states
are all followed at once, so the work is bounded by states times characters, and both are capped.

Understood: literals, `.`, `[...]`, `( )`, `(?: )`, `|`, `* + ? {m} {m,} {m,n}` and their lazy forms (the same to a search),
`^ $` (start and end of the whole text), `\\b \\B \\d \\D \\w \\W \\s \\S \\n \\t` and any escaped punctuation. Letter case is
ignored. Not understood, and said so: backreferences, lookaround, named groups, flags, possessive repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

MAX_PATTERN = 512  # characters
MAX_STATES = 1200

Test: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True)
class One:
    test: Test


@dataclass(frozen=True)
class Edge:
    name: str  # one of ^ $ b B


@dataclass(frozen=True)
class Sequence:
    parts: list[Node]


@dataclass(frozen=True)
class Either:
    parts: list[Node]


@dataclass(frozen=True)
class Repeat:
    part: Node
    low: int
    high: int | None


Node: TypeAlias = One | Edge | Sequence | Either | Repeat


class PatternError(ValueError):
    """The pattern is not one we understand; the text says where and why."""


@dataclass
class Machine:
    """States by number: each has a test and where it leads, or free moves (each perhaps only at an edge)."""

    tests: list[Test | None] = field(default_factory=list)
    moves: list[list[tuple[str, int]]] = field(default_factory=list)  # (edge or "", state)
    start: int = 0
    accept: int = 0

    def state(self, test: Test | None = None) -> int:
        if len(self.tests) >= MAX_STATES:
            raise PatternError(f"the pattern needs more than {MAX_STATES} states: make its counts smaller")
        self.tests.append(test)
        self.moves.append([])
        return len(self.tests) - 1


def search(pattern: str, text: str) -> bool:
    """Does the pattern match anywhere in the text?"""
    machine = compile(pattern)
    here: set[int] = set()
    for i in range(len(text) + 1):
        before, after = text[i - 1 : i], text[i : i + 1]
        here = _closure(machine, here | {machine.start}, before, after)
        if machine.accept in here:
            return True
        if after:
            nxt: set[int] = set()
            for state in here:
                test = machine.tests[state]
                if test is not None and test(after):
                    nxt.add(machine.moves[state][0][1])
            here = nxt
    return False


@lru_cache(maxsize=256)
def compile(pattern: str) -> Machine:
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN}")
    parser = _Parser(pattern)
    node = parser.alternatives()
    if parser.at < len(pattern):
        raise PatternError(f"an unmatched ) at character {parser.at + 1}")
    machine = Machine()
    machine.start, machine.accept = _build(machine, node)
    return machine


def _closure(machine: Machine, states: set[int], before: str, after: str) -> set[int]:
    seen, todo = set(states), list(states)
    while todo:
        state = todo.pop()
        if machine.tests[state] is None:
            for edge, to in machine.moves[state]:
                if to not in seen and (not edge or _at_edge(edge, before, after)):
                    seen.add(to)
                    todo.append(to)
    return seen


def _at_edge(edge: str, before: str, after: str) -> bool:
    if edge == "^":
        return not before
    if edge == "$":
        return not after
    boundary = _word(before) != _word(after)
    return boundary if edge == "b" else not boundary


def _build(machine: Machine, node: Node) -> tuple[int, int]:
    """Add the node's states; give back where it begins and where it ends."""
    begin, end = machine.state(node.test if isinstance(node, One) else None), machine.state()
    at = begin
    match node:
        case One():
            machine.moves[begin].append(("", end))
        case Edge(name):
            machine.moves[begin].append((name, end))
        case Sequence(parts):
            for part in parts:
                at = _join(machine, at, part)
            machine.moves[at].append(("", end))
        case Either(parts):
            for part in parts:
                machine.moves[_join(machine, begin, part)].append(("", end))
        case Repeat(part, low, high):
            for _ in range(low):
                at = _join(machine, at, part)
            machine.moves[at].append(("", end))
            if high is None:
                last = _join(machine, at, part)
                machine.moves[last].append(("", at))
            for _ in range(low, high or 0):
                at = _join(machine, at, part)
                machine.moves[at].append(("", end))
    return begin, end


def _join(machine: Machine, at: int, node: Node) -> int:
    """Add the node's states after state `at`; give back where it ends."""
    begin, end = _build(machine, node)
    machine.moves[at].append(("", begin))
    return end


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at, self.depth = pattern, 0, 0

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise PatternError("the pattern ends too early")
        self.at += 1
        return char

    def alternatives(self) -> Node:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            parts.append(self.sequence())
        return Either(parts) if len(parts) > 1 else parts[0]

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() and self.peek() not in "|)":
            parts.append(self.repeat(self.atom()))
        return Sequence(parts)

    def repeat(self, atom: Node) -> Node:
        char, low = self.peek(), 0
        high: int | None = None
        if char == "{":
            end = self.pattern.find("}", self.at)
            low_text, comma, high_text = self.pattern[self.at + 1 : end].partition(",")
            if end < 0 or not low_text.isdecimal() or not (high_text == "" or high_text.isdecimal()) or len(low_text + high_text) > 6:
                raise PatternError(f"a count like {{2}} or {{1,3}} is needed at character {self.at + 1}; a literal brace is \\{{")
            low, high = int(low_text), int(high_text) if high_text else None if comma else int(low_text)
            if high is not None and high < low:
                raise PatternError(f"the count at character {self.at + 1} ends before it begins")
            self.at = end + 1
        elif char and char in "*+?":
            self.at += 1
            low, high = (1 if char == "+" else 0), (1 if char == "?" else None)
        else:
            return atom
        if isinstance(atom, Edge):
            raise PatternError(f"an edge cannot be repeated (character {self.at})")
        if self.peek() == "?":
            self.at += 1
        if self.peek() and self.peek() in "*+{":
            raise PatternError(f"a repeat of a repeat at character {self.at + 1}")
        return Repeat(atom, low, high)

    def atom(self) -> Node:
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return One(self.any_of())
        if char == ".":
            return One(lambda c: c != "\n")
        if char in "^$":
            return Edge(char)
        if char == "\\":
            if self.peek() in ("b", "B"):
                return Edge(self.take())
            return One(self.escape()[0])
        if char in "*+?{":
            raise PatternError(f"nothing to repeat at character {self.at}")
        return One(_same(char))

    def group(self) -> Node:
        if self.pattern.startswith("?:", self.at):
            self.at += 2
        elif self.peek() == "?":
            raise PatternError(f"(?{self.pattern[self.at + 1 : self.at + 2]} is not understood here: no lookaround, flags or named groups")
        self.depth += 1
        if self.depth > 30:
            raise PatternError("more than 30 groups inside one another")
        node = self.alternatives()
        if self.peek() != ")":
            raise PatternError("a ( is never closed")
        self.at, self.depth = self.at + 1, self.depth - 1
        return node

    def escape(self) -> tuple[Test, str | None]:
        """What an escape matches, and the character it stands for when it is a single one."""
        char = self.take()
        if char.lower() in _CLASSES:
            test = _CLASSES[char.lower()]
            return (test if char.islower() else lambda c: not test(c)), None
        if char in _CONTROLS:
            return _same(_CONTROLS[char]), _CONTROLS[char]
        if char.isalnum():
            raise PatternError(f"\\{char} is not understood here" + (": no backreferences" if char.isdecimal() else ""))
        return _same(char), char

    def any_of(self) -> Test:
        negated = self.peek() == "^"
        self.at += negated
        tests: list[Test] = []
        first = True
        while first or self.peek() != "]":
            first = False
            test, low = self.member()
            if low is not None and self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                _, high = self.member()
                if high is None or high < low:
                    raise PatternError(f"a range that is none at character {self.at}")
                test = _between(low, high)
            tests.append(test)
        self.at += 1
        return (lambda c: not any(test(c) for test in tests)) if negated else (lambda c: any(test(c) for test in tests))

    def member(self) -> tuple[Test, str | None]:
        char = self.take()
        return self.escape() if char == "\\" else (_same(char), char)


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _same(char: str) -> Test:
    folded = char.lower()
    return lambda c: c == char or c.lower() == folded


def _between(low: str, high: str) -> Test:
    return lambda c: low <= c <= high or low <= c.lower() <= high or low <= c.upper() <= high


_CLASSES: dict[str, Test] = {"d": str.isdecimal, "w": _word, "s": str.isspace}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
