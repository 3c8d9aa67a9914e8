"""The lease protocol as a model (lease.pml), searched whole by Spin: what must hold does, and each broken rule is found.

Not the code but what it is meant to be: every order of steps, every moment to be killed or stopped, every guard that is
left alone, for one lease and two machines. What it assumes is in the head of lease.pml and in docs/how-it-lets-go.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import pages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = Path(__file__).with_name("lease.pml")
BROKEN = sorted(set(re.findall(r"^#ifn?def (\w+)", MODEL.read_text(), re.MULTILINE)))
"""The rules that can be broken, by name. Which property notices is below: a mutant that dies of something else tests nothing."""
NOTICED = {
    "ERROR_ENDS_IT": "P1",
    "GUARD_LATE": "P1",
    "INTENT_LATE": "P2",
    "LEAVING_IS_GONE": "P2",
    "LOCK_NOT_WAITED_FOR": "P3",
    "LOST_IS_REFUSED": "P2",
    "NO_ANSWER_IS_EMPTY": "P2",
    "NO_LAST_CHECK": "P1",
    "NO_OVERDUE_KILL": "P1",
    "ONE_LOOK": "P2",
    "SCHEDULE_AT_FIRST_EMPTY_LOOK": "P1",
    "SCHEDULE_FIRST": "P1",
    "SHORT_SETTLE": "P2",
    "TIMER_BY_SSH": "P1",
}


SOONER = {"NO_LAST_CHECK": "-DRANDOMIZE=7", "SCHEDULE_AT_FIRST_EMPTY_LOOK": "-DREVERSE", "SCHEDULE_FIRST": "-DREVERSE"}
"""In which order of steps the counterexample comes early. In any order it comes: in Spin's own these lie behind six million states."""


def search(folder: Path, *defined: str, compiled: str = "-O2") -> str:
    """What Spin's verifier says of the whole state space, or of the first counterexample."""
    if missing := [name for name in ("spin", "gcc") if shutil.which(name) is None]:
        why = f"apt-get install {' '.join(missing)}"
        if os.environ.get("GPULEASE_NO_SKIP", "") not in ("", "0"):
            pytest.fail(f"may not be skipped (GPULEASE_NO_SKIP) and cannot run: {why}", pytrace=False)
        pytest.skip(f"MODEL NOT CHECKED: {why}")
    run: Callable[..., str] = lambda *words: subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: E731
    run("spin", "-a", *(f"-D{name}" for name in defined), str(MODEL))
    run("gcc", "-w", *compiled.split(), "-DSAFETY", "-o", "pan", "pan.c")
    # -E: processes that have nothing left to wait for are meant to stand still.
    return run("./pan", "-E", "-m100000")


def failed(said: str) -> str:
    """Which property a counterexample breaks."""
    found = re.search(r"assertion violated (.*)", said)
    if found is None:
        return ""
    return "P3" if "lock" in found[1] else "P1" if "now<=" in found[1] else "P2"


def test_no_machine_runs_on_and_released_is_true_in_every_state_that_can_be_reached(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    said = search(tmp_path)
    states = int(re.search(r"(\d+) states, stored", said)[1])  # type: ignore[index]
    assert "errors: 0" in said and "max search depth too small" not in said, said
    # Reap has no journal; nothing else may be left out, or the model would promise what it never tried.
    unreached = {name: lines for name, lines in re.findall(r"unreached in proctype (\w+)\n((?:\t.*\n)*)", said)}
    left_out = [line for name, lines in unreached.items() if name != "Reap" for line in lines.splitlines() if ".pml" in line]
    assert [line for line in left_out if '"-end-"' not in line] == []
    assert f"{states / 1e6:.1f} million states" in pages.read("docs/how-it-lets-go.md")
    record_property("measured", f"lease model: {states:,} states, all searched in {time.monotonic() - began:.0f} s, 0 errors")


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(rule: str, tmp_path: Path) -> None:
    # Not optimized: gcc would take longer than it saves.
    said = search(tmp_path, rule, compiled=f"-O0 {SOONER.get(rule, '')}")
    assert failed(said) == NOTICED[rule], said
    assert (tmp_path / "lease.pml.trail").is_file(), "a counterexample can be replayed: spin -k lease.pml.trail -p -D… lease.pml"


def test_each_assumption_is_on_the_page_under_its_letter() -> None:
    head = MODEL.read_text().partition("*/")[0]
    letters = re.findall(r"^ \*   ([A-Z])  ", head, re.MULTILINE)
    page = pages.read("docs/how-it-lets-go.md")
    assert letters == list("ABCDEFG")
    assert [letter for letter in letters if f"\n| {letter} | " not in page] == []
