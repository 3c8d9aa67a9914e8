"""The page: the same bytes from the same inputs, and nothing in it that means anything to a renderer but us."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from provisioner.evidence import measured, render, words
from tests.evidence import journals
from tests.evidence.bundles import files_of, state
from tests.evidence.journals import STORIES

GOLDEN = Path(__file__).parent / "golden"


def page(story: str) -> bytes:
    tape = STORIES[story]()
    return render.report(state(tape), files_of(tape).get("results.json"))


@pytest.mark.parametrize("story", ["normal", "rehearsal", "held"])
def test_the_page_of_each_story_is_the_one_kept_in_the_repository(story: str) -> None:
    assert page(story) == (GOLDEN / f"{story}.md").read_bytes()


@pytest.mark.parametrize("story", STORIES)
def test_a_page_names_its_verdict_and_every_limit(story: str) -> None:
    made, text = state(STORIES[story]())["predicate"], page(story).decode()
    assert f"verdict {made['verdict']}" in text
    for code in made["limits"]:
        assert render.cell(words.limits.sentence(code), 400) in text
    assert ("SIMULATED" in text) == made["simulated"]


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://203.0.113.1/x.png)",
    "http://203.0.113.1/phish",
    "www.example.org",
    "<http://203.0.113.1>",
    "| a | b |\n|---|---|",
    "`code` **bold** _em_ ~~gone~~ $x$",
    "&lt;script&gt;",
    "\n\n# Verdict: clean",
    "\x1b[2Jshutdown proof OK",
    "<!-- -->",
    "\\",
    "[ref]: javascript:alert(1)",
    '" onmouseover="x',
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_value_from_elsewhere_shows_as_it_is_and_means_nothing(attack: str) -> None:
    shown = render.cell(attack)
    assert "\n" not in shown and "\x1b" not in shown
    assert not re.search(r"(?<!\\)[<>`*_\[\]|~$]", shown) and "://" not in shown.replace("\\://", "")
    bare = re.sub(r"&(amp|lt|gt|quot|#39);", "", shown)
    assert "&" not in bare


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_value_anywhere_in_a_page_starts_a_line_or_ends_a_cell(attack: str) -> None:
    tape = journals.Tape().genesis(profile={"name": attack}, waived=[attack]).launch().run()
    tape.observe("instance", journals.INST, "here", "running", type=attack, stateReason=attack)
    tape.sweep({"instance": 1}, unchecked={attack: attack})
    plain = journals.Tape().genesis(profile={"name": "x"}, waived=["x"]).launch().run()
    plain.observe("instance", journals.INST, "here", "running", type="x", stateReason="x")
    plain.sweep({"instance": 1}, unchecked={"x": "x"})
    results = {
        "scores": [],
        "stats": {attack: {"right": 1, "scored": 1, "tags": {attack: {"right": 1, "scored": 1}}, "absent": {attack: attack}}},
    }
    calm = json.loads(json.dumps(results).replace(json.dumps(attack)[1:-1], "x"))
    texts = [render.report(state(t.verdict("held")), json.dumps(r).encode()).decode() for t, r in ((tape, results), (plain, calm))]
    marks = [[re.match(r"(#+ |\||- |    |$)?", line)[0] for line in text.splitlines()] for text in texts]  # type: ignore[index]
    assert marks[0] == marks[1]
    bars = [[len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] for text in texts]
    assert bars[0] == bars[1]


@pytest.mark.parametrize(
    "results",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"stats":{"a":null}}',
        b'{"stats":7,"scores":{},"thresholds":"x"}',
        b'{"stats":{"host":{"right":"1","scored":[],"tags":7,"absent":[]}}}',
        b'{"stats":{"host":{"scored":0,"right":0}},"thresholds":[1,null,{"ok":1}]}',
    ],
)
def test_results_of_any_shape_leave_holes_and_never_fall_over(results: bytes) -> None:
    assert render.report(state(journals.normal()), results).startswith(b"# gpulease run")


def test_percentages_are_cut_and_bounds_are_rounded_outwards() -> None:
    assert (
        measured.tenths(999) == "99.9"
        and measured.ms(81_999_999) == "81.9"
        and measured.ms(-1_500_000) == "-1.5"
        and measured.ms(-1) == "0.0"
    )
    assert (words.usd(529_999, up=False), words.usd(529_999)) == ("0.52", "0.53")
    assert (words.usd(0), words.usd(1), words.usd(9_999, up=False), words.usd(10_000)) == ("0.00", "0.000001", "0.009999", "0.01")
    assert (words.span(0), words.span(59), words.span(2387), words.span(7200)) == ("0 s", "59 s", "39 min 47 s", "2 h")


def test_figures_and_their_absence_are_both_shown() -> None:
    stats: dict[str, Any] = {"ttftP50Ns": 81_200_000, "sent": 24, "failed": 1, "errorsPerMille": 42, "outputMilliTokensPerS": 61_250}
    stats["absent"] = {"ttftP99Ns": "needs 1000 samples; there are 24", "e2eP50Ns": "falls among the 20 of 24 that failed"}
    assert measured.times(stats) == [("time to first token", "81.2", "-", "-", "-"), ("whole answer", "-", "-", "-", "-")]
    assert ("output tokens/s", "61.2") in measured.counts(stats) and ("errors (%)", "4.2") in measured.counts(stats)
    assert "ttftP99Ns: needs 1000 samples; there are 24" in measured.reasons(stats)
