"""Running a playbook on a machine, and undoing it.

Steps run in order; the first that fails raises RunError naming the step, its line in the playbook and the last lines
the machine printed. Undoing goes backwards through every step that was begun, the one that failed included; one
undo that fails does not stop the rest, and none is hidden: with no other error under way they are raised together,
else they are notes on that error.

Values become quoted shell variables, bytes go by stdin or `put`. Every wait is the sleep that was handed in. This
file must not know what a playbook is for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from provisioner.errors import RefusedError, RunError
from provisioner.model import Host, Json
from provisioner.remote import facts
from provisioner.remote.playbook import Book, Expect, Put, Step, resolve, settle
from provisioner.secret import Secret

Given = Secret | bytes

Sleep = Callable[[float], None]
Say = Callable[[str], None]
TAIL = 12


@dataclass(frozen=True)
class StepResult:
    name: str
    seconds: float
    exit: int
    tail: str = ""  # cleaned; the last lines it printed


def play(
    book: Book,
    host: Host,
    values: Mapping[str, str],
    *,
    sleep: Sleep,
    secrets: Mapping[str, Secret] | None = None,
    files: Mapping[str, bytes] | None = None,
    say: Say = lambda line: None,
) -> tuple[StepResult, ...]:
    """Run every step in order. The first that fails raises RunError; nothing is undone here, see `undo` and `playing`."""
    return tuple(_play(book, host, settle(book, values), _given(book, secrets or {}, files or {}), sleep, say, []))


@contextmanager
def playing(
    book: Book,
    host: Host,
    values: Mapping[str, str],
    *,
    sleep: Sleep,
    secrets: Mapping[str, Secret] | None = None,
    files: Mapping[str, bytes] | None = None,
    say: Say = lambda line: None,
) -> Iterator[tuple[StepResult, ...]]:
    """As `play`; on the way out, every step that was begun is undone, also when one of them failed."""
    settled = settle(book, values)
    given = _given(book, secrets or {}, files or {})
    begun: list[Step] = []
    try:
        yield tuple(_play(book, host, settled, given, sleep, say, begun))
    except BaseException as error:
        for problem in _undo(book, begun, host, settled, say):
            error.add_note(problem)
        raise
    if problems := _undo(book, begun, host, settled, say):
        raise RunError("; ".join(problems), why=f"undoing {book.source} on {host.name}")


def undo(book: Book, host: Host, values: Mapping[str, str], *, say: Say = lambda line: None) -> None:
    """Undo all steps, last first. Every undo is tried; all that failed are in the one error."""
    if problems := _undo(book, list(book.doc.steps), host, settle(book, values), say):
        raise RunError("; ".join(problems), why=f"undoing {book.source} on {host.name}")


def _undo(book: Book, steps: Sequence[Step], host: Host, values: Mapping[str, str], say: Say) -> list[str]:
    problems = []
    for step in reversed(steps):
        if step.undo is None:
            continue
        say(f"{book.doc.name}: undo {step.name}")
        try:
            result = host.run(step.undo, values=values, timeout=step.timeout, check=False)
        except RunError as error:
            problems.append(f"{book.where(step)}: undo of {step.name!r} failed: {error.what}")
        else:
            if result.exit != 0:
                problems.append(
                    f"{book.where(step)}: undo of {step.name!r} ended with {result.exit}: {_tail(result.stdout + result.stderr, 3)}"
                )
    return problems


def _given(book: Book, secrets: Mapping[str, Secret], files: Mapping[str, bytes]) -> Mapping[str, Given]:
    """Every blob that a step asks for, before the first step runs."""
    for step in book.doc.steps:
        for wanted, offered, kind in (
            (step.stdin, secrets, "secret"),
            (step.put and step.put.secret, secrets, "secret"),
            (step.put and step.put.given, files, "file"),
        ):
            if wanted is not None and wanted not in offered:
                raise RefusedError(f"{book.where(step)}: step {step.name!r} needs the {kind} {wanted!r}, which was not given")
    if both := set(secrets) & set(files):
        raise RefusedError(f"{book.source}: {min(both)!r} was given both as a secret and as a file")
    return {**secrets, **files}


def _play(
    book: Book, host: Host, values: Mapping[str, str], given: Mapping[str, Given], sleep: Sleep, say: Say, begun: list[Step]
) -> Iterator[StepResult]:
    for step in book.doc.steps:
        say(f"{book.doc.name}: {step.name}")
        begun.append(step)
        start = time.monotonic()
        for left in range(step.retries, -1, -1):
            exit, tail = _step(step, host, values, given, sleep)
            if exit == 0 or not left:
                break
            sleep(step.every)
        if exit != 0:
            raise RunError(
                f"{book.where(step)}: step {step.name!r} {_ended(step, exit)}",
                why=tail or "it printed nothing",
                next=f"put right what it says; gpulease show playbook {book.doc.name}   shows the step",
            )
        yield StepResult(step.name, time.monotonic() - start, exit, tail)


_TIMED_OUT = 124


def _ended(step: Step, exit: int) -> str:
    if exit == _TIMED_OUT and step.wait_until is not None:
        return f"did not come true within {step.timeout} s"
    return "does not hold" if step.assert_fact is not None else f"ended with {exit}"


def _step(step: Step, host: Host, values: Mapping[str, str], given: Mapping[str, Given], sleep: Sleep) -> tuple[int, str]:
    if step.run is not None:
        stdin = _bytes(given[step.stdin]) if step.stdin else b""
        result = host.run(step.run, values=values, stdin=stdin, timeout=step.timeout, check=False)
        return result.exit, _tail(result.stdout + result.stderr)
    if step.put is not None:
        _put(step.put, host, values, given)
        return 0, ""
    if step.wait_until is not None:
        return _wait(step, step.wait_until, host, values, sleep)
    assert step.assert_fact is not None
    problem = expect(step.assert_fact, facts.read(host, step.assert_fact.fact).value)
    return (1, problem) if problem else (0, "")


def _put(put: Put, host: Host, values: Mapping[str, str], given: Mapping[str, Given]) -> None:
    name = put.given or put.secret
    data = _bytes(given[name]) if name is not None else (put.content or "").encode()
    to = re.sub(r"\$([a-z][a-z0-9_]*)", lambda found: values[found[1]], put.to)
    # A value may hold "/" or ".." by its own rule; a path may not.
    if not re.fullmatch(r"\.gpulease(/[A-Za-z0-9_][A-Za-z0-9._-]*)+", to):
        raise RefusedError(f"the path {to!r} leads out of .gpulease")
    host.put(data, to, mode=int(put.mode, 8))


def _bytes(given: Given) -> bytes:
    return given.reveal_bytes() if isinstance(given, Secret) else given


def _wait(step: Step, script: str, host: Host, values: Mapping[str, str], sleep: Sleep) -> tuple[int, str]:
    end = time.monotonic() + step.timeout
    while True:
        result = host.run(script, values=values, timeout=step.timeout, check=False)
        if result.exit == 0:
            return 0, _tail(result.stdout + result.stderr)
        if time.monotonic() + step.every > end:
            return _TIMED_OUT, _tail(result.stdout + result.stderr)
        sleep(step.every)


def expect(expected: Expect, value: Json) -> str:
    """Why a fact is not as expected, or "". Says the number seen and the number needed."""
    name = expected.fact + (f".{expected.key}" if expected.key else "")
    for part in expected.key.split(".") if expected.key else ():
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            return f"{name}: the machine's answer has no {part!r}"
    if expected.count is not None and (not isinstance(value, list) or len(value) != expected.count):
        return f"{name}: {len(value) if isinstance(value, list) else 'not a list'}; needs {expected.count}"
    if expected.equals is not None and (type(value) is not type(expected.equals) or value != expected.equals):
        return f"{name} is {value!r}; needs {expected.equals!r}"
    if expected.at_least is not None:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return f"{name} is {value!r}; needs at least {expected.at_least}"
        low = (
            value < expected.at_least
            if isinstance(value, int) and isinstance(expected.at_least, int)
            else facts.older(str(value), str(expected.at_least))
        )
        if low:
            return f"{name} is {value}; needs at least {expected.at_least}"
    return ""


def _tail(text: str, lines: int = TAIL) -> str:
    from provisioner.clean import clean_lines

    return "\n".join(clean_lines(text, last=lines, limit=400))


class Player:
    """Plays playbooks by name on one machine: what code that may not know this folder is handed."""

    def __init__(self, host: Host, *, sleep: Sleep, say: Say = lambda line: None) -> None:
        self.host, self.sleep, self.say = host, sleep, say

    def __call__(
        self, name: str, values: Mapping[str, str], *, secrets: Mapping[str, Secret] | None = None, files: Mapping[str, bytes] | None = None
    ) -> AbstractContextManager[tuple[StepResult, ...]]:
        return playing(resolve(name), self.host, values, sleep=self.sleep, secrets=secrets, files=files, say=self.say)
