"""What is not on the list does not enter a journal, under whatever name and however deep; and nothing is stopped by that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provisioner import journal_fields
from provisioner.journal import Journal, read
from provisioner.journal_fields import DIGESTS, FACTS, KINDS, LEFT_OUT, kept
from provisioner.lease import body_of, holdings, release
from provisioner.model import Phase, Resource, Verdict
from provisioner.providers.sim import SimClock, SimProvider
from provisioner.scope import SystemClock
from tests.core.torture import LEASE, SPEC

PROOF = Path(__file__).parents[2] / "docs" / "proof.md"
PRIVATE = {
    "userData": "#cloud-config canary-1",
    "headers": {"Authorization": "Bearer canary-2"},
    "environment": {"HF_TOKEN": "canary-3", "deeper": [{"still": "canary-4"}]},
    "stdout": ["canary-5", {"line": "canary-6"}],
    "user_data": b"canary-7",
    "response": object(),
}
"""What must not enter, as somebody might hand it over; some of it no journal could write."""


def inner(shape: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in a body where an object may stand."""
    yield where
    for name, one in shape.items():
        if isinstance(one, Mapping):
            yield from inner(one, (*where, name))


def at(where: tuple[str, ...], value: Any) -> Any:
    return {where[0]: at(where[1:], value)} if where else value


PLACES = [(kind, where) for kind, shape in KINDS.items() for where in inner(shape)]


@pytest.mark.left_out
@pytest.mark.parametrize(("kind", "where"), PLACES, ids=[".".join((kind, *where)) for kind, where in PLACES])
@pytest.mark.parametrize("way", ["append", "note"])
def test_what_is_not_listed_does_not_enter_at_any_depth(way: str, kind: str, where: tuple[str, ...], tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", SystemClock()) as journal:
        getattr(journal, way)(kind, at(where, PRIVATE))
        if where:
            getattr(journal, way)(kind, at(where[:-1], {where[-1]: [PRIVATE, "canary-8"]}))  # in a list, and a text for an object
        written = (tmp_path / "journal.jsonl").read_text()
        assert "canary" not in written + json.dumps(journal.entries) and journal.unwritten is None
    for entry in read(tmp_path / "journal.jsonl").entries:
        assert ".".join((*where, "userData")) in entry["body"][LEFT_OUT] or len(entry["body"][LEFT_OUT]) == journal_fields.MOST_NAMED


@pytest.mark.left_out
def test_an_object_where_a_text_is_listed_does_not_enter_either() -> None:
    body = {"why": PRIVATE, "code": [PRIVATE, "Throttling", ["canary"]], "op": "remove"}
    assert kept("failed", body) == {"why": "", "code": ["Throttling"], "op": "remove", LEFT_OUT: ["code", "why"]}
    hashed = {"results.json": "0" * 64}
    files = {**hashed, "a.txt": "canary", "canary canary": "0" * 64, "b.txt": {"c": "canary"}}
    assert kept("seal", {"files": files})["files"] == hashed and kept("seal", {"files": "canary"})["files"] == {}
    assert kept("nothing of ours", {"what": "canary"}) == {LEFT_OUT: ["what"]}


@pytest.mark.left_out
def test_the_name_of_what_was_left_out_is_told_only_if_it_looks_like_one_of_ours() -> None:
    names = ["AKIACANARY0123456789", "hf_canaryCanary0123456789", "a b", "\x1b[0m", "é", "x" * 60, 7, LEFT_OUT, "userData", "k8"]
    assert kept("outcome", dict.fromkeys(names, 1))[LEFT_OUT] == ["?", "k8", LEFT_OUT, "userData"]
    assert len(kept("outcome", {f"name{chr(97 + n)}": n for n in range(20)})[LEFT_OUT]) == journal_fields.MOST_NAMED


@pytest.mark.left_out
def test_a_field_too_many_stops_neither_an_intent_nor_the_letting_go(tmp_path: Path) -> None:
    clock = SimClock()
    cloud = SimProvider(clock)
    inventory = cloud.inventory

    def telling(lease: str | None = None) -> Any:
        whole = inventory(lease)
        for thing in whole.resources:
            object.__setattr__(thing, "facts", {**thing.facts, "userData": "canary", "token": {"a": "canary"}})
        return whole

    cloud.inventory = telling  # type: ignore[method-assign]
    with Journal(tmp_path / "journal.jsonl", clock) as journal:
        intent = journal.append("intent", {"op": "create", "class": "instance", "token": "t-1", "params": {"userData": "canary"}})
        cloud.create("instance", SPEC, lease=LEASE, token="t-1", made={})
        assert intent["body"]["params"] == {} and holdings(journal.entries).intents == {0: "t-1"}
        assert release(LEASE, cloud, journal, clock) is Verdict.RELEASED
    assert not cloud.world.billed()
    assert "canary" not in (tmp_path / "journal.jsonl").read_text()


@pytest.mark.left_out
def test_a_line_with_something_left_out_can_still_be_read_back_as_a_resource() -> None:
    odd = Resource("instance", "i-1", Phase.HERE, {"Name": "running"}, facts={"a": 1}, token="t")  # type: ignore[arg-type]
    body = kept("observe", {**body_of(odd), "facts": "a text"})
    held = holdings([{"kind": "observe", "body": body, "seq": 0, "at": {"wall": "2026-11-21T14:02:10.123Z"}}])
    assert held.resources["i-1"].billed and held.resources["i-1"].facts == {}


def test_a_body_that_fits_is_written_as_it_is() -> None:
    body: dict[str, Any] = {"guard": "fleet", "state": "armed", "firesAt": None, "drilled": {"secondsLate": 1}}
    assert kept("guard", body) is body
    assert kept("stage", {"detail": {"facts": {"gpus": [{"name": "L4"}], "mig": ()}, "refused": ["a"]}}).keys() == {"detail"}
    assert kept("seal", {"spend": None, "files": {}}).keys() == {"spend", "files"}


def listed(shape: Any) -> str:
    """A shape as the page writes it: names in order, an object's own names in braces."""
    if shape is DIGESTS:
        return "file: sha256"
    inside = {name: name if one is None or one is FACTS else f"{name} {{{listed(one)}}}" for name, one in shape.items()}
    return ", ".join(inside[name] for name in sorted(inside))


def test_the_page_lists_the_same_fields() -> None:
    page = PROOF.read_text("utf-8").split("## What is not written down")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))
    assert rows == {name: listed(shape) for name, shape in [*KINDS.items(), ("facts", FACTS)]}
