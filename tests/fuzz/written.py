"""What a user writes, or takes over from somebody: profiles, playbooks, eval sets. As in `targets`: refused in our own words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from provisioner import profile, yamlsafe
from provisioner.errors import RefusedError
from provisioner.evals import cases, score
from provisioner.remote import playbook
from provisioner.render import error_text
from tests.fuzz import machine

ROOT = Path(__file__).parents[2]


def of_yaml(data: bytes) -> None:
    try:
        yamlsafe.load(data, "x.yaml")
    except RefusedError:
        return


def told(error: RefusedError) -> None:
    """As it comes to a terminal: line by line, and nothing in a line moves the cursor."""
    for line in error_text(error).splitlines():
        machine.shown(line)


def of_profile(data: bytes) -> None:
    try:
        profile.parse(data, "x.yaml")
    except RefusedError as e:
        told(e)


def of_playbook(data: bytes) -> None:
    try:
        playbook.load(data, "x.yaml")
    except RefusedError as e:
        told(e)


def of_eval_set(data: bytes) -> None:
    """What is taken is right about itself: each case's gold passes its own checks, and has a name of its own."""
    try:
        evals = cases.parse(data, "x", "x.jsonl")
    except RefusedError as e:
        told(e)
        return
    assert all(score.check(case.gold, one).ok for case in evals.cases for one in case.checks)
    assert len({case.id for case in evals.cases}) == len(evals.cases)


def seeds(name: str) -> Iterable[bytes]:
    match name:
        case "yaml" | "profile":
            return [path.read_bytes() for path in sorted((ROOT / "profiles").glob("*.yaml"))]
        case "playbook":
            return [path.read_bytes() for path in sorted((ROOT / "playbooks").glob("*.yaml"))]
        case "eval_set":
            lines = (ROOT / "profiles/evals/smoke.jsonl").read_bytes().splitlines()
            return [b"\n".join(lines[at : at + 4]) for at in range(0, len(lines), 4)]
        case _:
            return []
