"""Every breakage in the table is noticed, by the tests that it names; and the table speaks of today's source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Mutant
from tests.mutants.run import ROOT, copy, fate, pytest_in


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_table_speaks_of_todays_source(mutant: Mutant) -> None:
    compile(mutant.broken((ROOT / mutant.file).read_text("utf-8")), mutant.file, "exec")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in Path(ROOT / file).read_text("utf-8"), test


def test_no_two_mutants_have_one_name_and_none_is_without_tests() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.tests and mutant.old != mutant.new for mutant in MUTANTS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_mutant_they_all_pass() -> None:
    """Or every kill below would be worth nothing."""
    with copy() as root:
        code, said = pytest_in(root, sorted({test for mutant in MUTANTS for test in mutant.tests}))
    assert code == 0, said[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_is_noticed(mutant: Mutant) -> None:
    ended = fate(mutant)
    assert ended.killed, f"{mutant.name} survived {', '.join(mutant.tests)}"
