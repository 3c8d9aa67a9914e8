"""A sample of the random mutations; `python -m tests.evidence.mutations` makes as many as there is time for."""

from __future__ import annotations

from pathlib import Path

from tests.evidence.broken import OUTSIDERS, OWNERS
from tests.evidence.mutations import KEPT, one
from tests.evidence.test_auditor import agree


def test_broken_bundles_are_refused_by_both_verifiers_and_none_makes_them_fall_over(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    held: dict[str, bytes] = {}
    made = [one(seed, folder, held, agree) for seed in [*range(7_000_000, 7_000_120), *KEPT]]
    assert {name for name, _ in made} == {mutation.__name__ for mutation in OUTSIDERS + OWNERS}
    assert sum(code == 1 for _, code in made) > 80
