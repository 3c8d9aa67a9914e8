"""What is advised when a run has ended in an error: its lease is named, its machine is gone, and money comes first."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from provisioner.afterwards import told
from provisioner.errors import Exit, HostError
from provisioner.scope import Cancelled
from tests.cli.test_words import KINDS, SOURCES

LEASE = "r-20261130t092156z-tck3m7zz"
MAY_COST = (Exit.UNPROVEN, Exit.HELD, Exit.LEAVING)


def next_of(error: BaseException, code: Exit = Exit.FAILED) -> str:
    said = told(error, LEASE, code)
    assert said is not None and said.what
    return said.next


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        ("", f"gpulease report {LEASE}"),
        ("gpulease logs", f"gpulease logs {LEASE}"),
        ("gpulease logs   has more of it", f"gpulease logs {LEASE}   has more of it"),
        ("try it; gpulease report, then gpulease logs.", f"try it; gpulease report {LEASE}, then gpulease logs {LEASE}."),
        ("gpulease report r-other", "gpulease report r-other"),
        ("gpulease plan PROFILE", "gpulease plan PROFILE"),
    ],
)
def test_a_command_for_the_newest_lease_is_told_with_this_one(raised: str, shown: str) -> None:
    error = HostError("x", next=raised)
    assert next_of(error) == shown and next_of(error) == shown, "told twice: as text and as JSON"


@pytest.mark.parametrize("code", MAY_COST)
def test_what_may_still_cost_money_is_the_next_step_whatever_went_wrong(code: Exit) -> None:
    error = HostError("x", next="another image")
    assert next_of(error, code) == next_of(error, code) == f"gpulease release {LEASE}; then: another image"
    assert next_of(Cancelled("SIGINT"), code).startswith(f"gpulease release {LEASE}")


def test_every_ending_has_a_why_and_a_next_step() -> None:
    for error in (Cancelled("SIGINT"), Cancelled("deadline"), ZeroDivisionError("x")):
        said = told(error, LEASE, Exit.FAILED)
        assert said is not None and said.why and said.next
    assert "--minutes" in next_of(Cancelled("deadline"), Exit.BUDGET) and told(None, LEASE, Exit.OK) is None


def test_no_error_of_a_machine_advises_what_needs_the_machine() -> None:
    """It is let go of before anybody reads the words. The lease has no name there, and `release` has nothing left to do."""
    advice = [
        (f"{path}:{node.lineno}", text)
        for path, source in SOURCES.items()
        if path.parts[1] in ("remote", "runtimes", "run.py", "serving.py", "measure.py", "launching.py", "guards.py")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS | {"FactUnreadable", "Failure"}
        for word in node.keywords
        if word.arg == "next"
        for text in [ast.unparse(word.value)]
    ]
    assert len(advice) > 30
    assert not [one for one in advice if "LEASE" in one[1] or "gpulease release" in one[1]]
    assert not [one for one in advice if Path(one[1].strip("'\"")).name in ("nvidia-smi", "python3 -V")]
