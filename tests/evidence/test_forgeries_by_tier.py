"""What the key's owner can forge, tier by tier: the table in docs/proof.md, worked out here and compared with the page.

The owner has the key and rewrites whatever is theirs; AWS's own material is what AWS would have given of the true run, under
the rehearsal's keys. A forgery counts as stopped at a tier when `verify --require` of that tier does not end with 0.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from provisioner.evidence import verify
from provisioner.rehearsal import worthless
from tests.evidence import trail
from tests.evidence.amazon import PINNED
from tests.evidence.bundles import forge, write
from tests.evidence.tape import INST, Tape
from tests.evidence.test_forgeries import STATEMENTS

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"
TIERS = ("client", "identified", "recorded", "corroborated")
Entries = list[dict[str, Any]]


def each(kind: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Entries], None]:
    def apply(entries: Entries) -> None:
        for entry in entries:
            if entry["kind"] == kind:
                change(entry["body"])

    return apply


def facts(**said: Any) -> Callable[[Entries], None]:
    """What the provider is said to have said of the machine."""

    def apply(entries: Entries) -> None:
        for entry in entries:
            if entry["body"].get("id") == INST and "facts" in entry["body"]:
                entry["body"]["facts"].update({k: v for k, v in said.items() if k in entry["body"]["facts"]})

    return apply


def named(old: str, new: str) -> Callable[[Entries], None]:
    def apply(entries: Entries) -> None:
        entries[:] = json.loads(json.dumps(entries).replace(old, new))

    return apply


def stopped_earlier(entries: Entries) -> None:
    """The answer to the termination, and what was seen after it, a minute earlier; the bill ends with it."""
    for entry in entries:
        if entry["kind"] == "done" and entry["body"].get("op") == "remove" and entry["body"]["id"] == INST:
            at = entry["body"].get("providerDate", "")
            entry["body"]["providerDate"] = re.sub(r":(\d\d):(\d\d)Z", lambda m: f":{int(m[1]) - 1:02d}:{m[2]}Z", at)


def another_time(entries: Entries) -> None:
    """The whole run an hour later, in every line of it."""
    entries[:] = json.loads(re.sub(r"2026-11-18T1([1-3]):", lambda m: f"2026-11-18T1{int(m[1]) + 1}:", json.dumps(entries)))


def price(entries: Entries) -> None:
    for line in entries[0]["body"]["quote"]["lines"]:
        line["microUsdPerHour"] = 1


def without(kind: str) -> Callable[[Entries], None]:
    return lambda entries: entries.__setitem__(slice(None), [entry for entry in entries if entry["kind"] != kind])


REWRITTEN: dict[str, Callable[[Entries], None]] = {
    "the price per hour lowered": price,
    "the budget raised afterwards": lambda e: e[0]["body"].update(budgetMicroUsd=99_000_000),
    "the time allowed raised afterwards": lambda e: e[0]["body"].update(maxRunSeconds=99_000),
    "another profile named": lambda e: e[0]["body"]["profile"].update(name="small"),
    "guards said to have been read back": each("guard", lambda b: b.update(state="read-back")),
    "guards left out": without("guard"),
    "another outcome": each("outcome", lambda b: b.update(outcome="interrupted", exit=130)),
    "another machine's id": named(INST, "i-0ffffffffffffffff"),
    "a smaller type of machine": named("g6.xlarge", "t3.nano"),
    "launched later than it was": facts(launchTime="2026-11-18T11:08:30Z"),
    "stopped a minute earlier than it was": stopped_earlier,
    "the whole run at another time": another_time,
    "another region": named("us-east-1", "eu-west-1"),
    "another lease's name": named("7f3a9k2m", "00000000"),
    "request ids made up": named('"req-', '"made-up-'),
    "the runner's version changed": lambda e: e[0]["body"]["producer"].update(version="9.9.9"),
}


@functools.cache
def true() -> Tape:
    return trail.story()


HIDDEN = "a second machine kept quiet about"
STANDING = "a machine that still runs told as gone"


def recorded(name: str) -> list[trail.Event]:
    """What AWS recorded of what really happened."""
    events = trail.events(true())
    if name == HIDDEN:
        answer = {"instancesSet": {"items": [{"instanceId": "i-0second"}]}}
        events.append(trail.event("RunInstances", "req-hidden", "2026-11-18T11:07:00Z", {}, answer, trail.head_after(true(), 5)))
    return [event for event in events if name != STANDING or event["eventName"] != "TerminateInstances"]


def given(name: str, tier: str) -> dict[str, bytes]:
    """What AWS gives of it, up to that tier."""
    made = {} if tier == "client" else dict(true().aws)
    made |= trail.copied(recorded(name)) if tier in ("recorded", "corroborated") else {}
    return made | (trail.logged(recorded(name), trail.HOURS) if tier == "corroborated" else {})


def retold(change: Callable[[Entries], None], aws: dict[str, bytes]) -> Tape:
    """The true run, told otherwise, chained and anchored anew, with those files of AWS's."""
    entries: Entries = json.loads(json.dumps(true().entries))
    change(entries)
    moved = {entry["seq"]: seq for seq, entry in enumerate(entries)}
    tape, renamed = Tape(), {}
    for seq, entry in enumerate(entries):
        body = entry["body"]
        entry.update(prev=tape.head, seq=seq)
        if "token" in body:
            body["token"] = renamed.setdefault(body["token"], f"{body['token'].split('-')[0]}-{seq}-{tape.head[:32]}")
        if "intentSeq" in body:
            body["intentSeq"] = moved[body["intentSeq"]]
        if entry["kind"] == "anchor":
            body["head"] = tape.head[:32]
        if entry["kind"] == "seal":
            named = {k: v for k, v in body["files"].items() if aws or not k.startswith("aws/")}
            # Of another machine there is no document: the forger puts the true one under its name.
            aws |= {k: next(iter(true().aws.values())) for k in named if k.startswith("aws/") and k not in aws}
            body["files"] = named
        tape.entries.append(entry)
        tape.lines.append(rfc8785.dumps(entry) + b"\n")
        tape.head = hashlib.sha256(tape.lines[-1]).hexdigest()
    tape.aws = aws
    return tape


def at_each_tier(name: str, base: Path) -> list[str]:
    """The codes that stop it, or "passes"."""
    found = []
    for tier in TIERS:
        tape = retold(REWRITTEN.get(name, lambda entries: None), given(name, tier))
        report = verify.verify(write(base / tier, tape), tier, certificates=[PINNED], cloudtrail_keys=[worthless.public_key()])
        codes = sorted({problem.code for problem in report.problems})
        found.append("passes" if report.exit == 0 else ", ".join(codes) or "not reached")
    return found


def empty_look(entries: Entries) -> None:
    """The account still held something, and the program wrote from the start that it did not."""
    each("sweep", lambda body: body.update(found=0, classes=[row | {"found": 0} for row in body["classes"]]))(entries)


LIVE: dict[str, Callable[[Entries], None]] = {
    "a look that found something written as an empty one, while the run went on": empty_look,
    "a price made up before the launch": price,
}
"""Lies told while the run went on: AWS's log commits to them as it would to the truth."""


def told_live(name: str, base: Path) -> list[str]:
    found = []
    for tier in TIERS:
        tape = retold(LIVE[name], {} if tier == "client" else dict(true().aws))
        events = trail.events(tape)
        tape.aws |= trail.copied(events) if tier in ("recorded", "corroborated") else {}
        tape.aws |= trail.logged(events, trail.HOURS) if tier == "corroborated" else {}
        report = verify.verify(write(base / tier, tape), tier, certificates=[PINNED], cloudtrail_keys=[worthless.public_key()])
        found.append("passes" if report.exit == 0 else ", ".join(sorted({problem.code for problem in report.problems})))
    return found


def rows(base: Path) -> list[str]:
    made = []
    for n, name in enumerate([*REWRITTEN, HIDDEN, STANDING]):
        made.append(f"| {name} | {' | '.join(at_each_tier(name, base / f'r{n}'))} |")
    for n, name in enumerate(LIVE):
        made.append(f"| {name} | {' | '.join(told_live(name, base / f'l{n}'))} |")
    for n, (name, (story, forged, _)) in enumerate(STATEMENTS.items()):
        report = verify.verify(forge(base / f"s{n}", story, forged))
        code = ", ".join(sorted({problem.code for problem in report.problems}))
        made.append(f"| {name} (statement only) |{f' {code} |' * len(TIERS)}")
    return made


def test_nothing_that_is_told_truly_is_stopped(tmp_path: Path) -> None:
    assert at_each_tier("the truth", tmp_path) == ["passes"] * len(TIERS)


def test_the_table_on_the_page_is_what_verify_does(tmp_path: Path) -> None:
    made = rows(tmp_path)
    assert len(made) >= 40
    page = PAGE.read_text("utf-8")
    assert not [row for row in made if row not in page], "\n".join(made)


@pytest.mark.parametrize("name", [*REWRITTEN, HIDDEN, STANDING])
def test_what_stops_a_forgery_at_one_tier_stops_it_at_the_next(name: str, tmp_path: Path) -> None:
    found = at_each_tier(name, tmp_path)
    first = next((n for n, what in enumerate(found) if what != "passes"), len(found))
    assert all(what != "passes" for what in found[first:]), found
