"""The client's lines come from a machine that is not ours: believed in their times, never in their form."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.evals.samples import NotSample, Sample, Samples, joined, read
from provisioner.evals.stats import e2e_ns, figures
from tests.evals.made import sample

GOOD = sample().public()


def line(**change: Any) -> str:
    return json.dumps({**GOOD, **change})


def test_what_is_kept_is_what_was_written() -> None:
    got = Samples("host")
    assert got.feed(line()) == sample() and got.samples == read([line(), "", '{"header":{}}', line()])[:1]
    assert got.samples[0].public() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"n": -1}, {"n": 1.0}, {"n": True}, {"sent_ns": "1"}, {"done_ns": 1 << 63}, {"case": 7},
        {"case": "x" * 65}, {"text": "x" * 1048577},
        {"chunks": [[1]]}, {"chunks": [[1, 2, 3]]}, {"chunks": {}}, {"chunks": [[5, 1], [3, 1]]}, {"first_ns": 1}, {"first_ns": None},
        {"done_ns": 0}, {"error": 5}, {"error": "x" * 600}, {"warmup": 1}, {"status": "200"}, {"vantage": "tunnel"}, {"extra": 1},
        {"text": "\ud800"}, {"case": "\ud800"}, {"error": "\ud800"}, {"finish": "\ud800"},
        {"chunks": [], "first_ns": None}, {"intended_ns": 99}, {"tokens_out": 10**30},
    ],
)  # fmt: skip
def test_a_sample_of_another_form_is_junk_and_the_others_stay(change: dict[str, Any]) -> None:
    got = Samples("host")
    assert got.feed(line(**change)) is None and got.feed(line()) is not None
    assert (got.junk, len(got.samples)) == (1, 1) and got.first_junk.isascii() and len(got.first_junk) < 500


S = 10**9


def one(case: str, sent_s: int, error: str | None = None) -> Sample:
    """A request that took a second."""
    at, end = sent_s * S, sent_s * S + S
    return replace(
        sample(), case=case, intended_ns=at, sent_ns=at, done_ns=end, first_ns=None if error else end, chunks=() if error else ((end, 1),),
        error=error, tokens_out=10,
    )  # fmt: skip


def test_what_failed_long_before_the_machine_was_taken_stays_failed() -> None:
    part = Samples("host", taken_back=True)
    part.samples += [one("a", 1, "http-400: no"), one("b", 2), one("c", 2, "reset: x"), one("d", 4, "connect-refused: x")]
    assert [s.case for s in part.samples if part.unasked(s)] == ["c", "d"]
    part.taken_back = False
    assert not [s for s in part.samples if part.unasked(s)], "on a machine that is still there a failure is a failure"


@pytest.mark.parametrize("booted", [100, 103, 90_000])
def test_two_machines_are_no_faster_than_one_whatever_their_clocks_say(booted: int) -> None:
    parts = [Samples("host", machine=1), Samples("host", machine=2)]
    for part, begin in zip(parts, (100, booted), strict=True):
        part.samples += [one(f"{begin}-{n}", begin + n) for n in range(10)]
    found = figures(joined(parts))
    assert (found["outputMilliTokensPerS"], found["milliRequestsPerS"]) == (10_000, 1000)
    assert {e2e_ns(s) for s in joined(parts)} == {S}


def test_parts_of_one_machine_keep_its_clock() -> None:
    parts = [Samples("host", machine=1), Samples("host", machine=1)]
    parts[0].samples, parts[1].samples = [one("a", 1)], [one("b", 5)]
    assert joined(parts) == [one("a", 1), one("b", 5)]


@given(st.text() | st.recursive(st.none() | st.integers() | st.floats(), lambda inner: st.lists(inner)).map(json.dumps))
def test_no_line_is_more_than_junk(text: str) -> None:
    got = Samples("host")
    assert got.feed(text) is None and got.junk == 1


def test_a_pass_is_whole_only_when_the_client_says_so_and_nothing_is_missing() -> None:
    got = Samples("host")
    got.feed('{"header":{"client":"1","limits":{"bytes":5}}}')
    got.feed(line())
    assert not got.whole
    got.feed('{"footer":{"planned":2,"sent":2,"stopped":null}}')
    assert not got.whole
    got.feed(line(n=1))
    assert got.whole and got.header == {"client": "1", "limits": {"bytes": 5}}
    got.feed('{"footer":{"planned":2,"sent":2}}')
    assert got.junk == 1  # a second end is no end


def test_what_a_header_calls_its_fields_can_be_written_down() -> None:
    got = Samples("host")
    got.feed(json.dumps({"header": {"\ud800a\x1b[2J": "b\udfff\x07", "limits\n": {"c\ud800": 1}}}))
    assert got.header == {" a [2J": "b  ", "limits ": {"c ": 1}}


def test_a_stored_file_that_was_damaged_names_the_line() -> None:
    with pytest.raises(NotSample, match="line 2: not JSON"):
        read([line(), "{", line()])
