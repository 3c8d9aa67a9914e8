"""Every breakage in the table is noticed, by the tests that it names; and the table speaks of today's source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Mutant
from tests.mutants.run import ROOT, Stable


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_table_speaks_of_todays_source(mutant: Mutant) -> None:
    compile(mutant.broken((ROOT / mutant.file).read_text("utf-8")), mutant.file, "exec")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in Path(ROOT / file).read_text("utf-8"), test


def test_no_two_mutants_have_one_name_and_none_is_without_tests() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.tests and mutant.old != mutant.new for mutant in MUTANTS)


@pytest.fixture(scope="module")
def stable() -> Iterator[Stable]:
    one = Stable()
    yield one
    one.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_mutant_they_all_pass(stable: Stable) -> None:
    """Or every kill below would be worth nothing. That no history goes wrong then, tests/sim holds."""
    ended = stable.ask("--whole")
    assert not ended.killed, ended.by


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_it_is_noticed(mutant: Mutant, stable: Stable, record_property: Callable[[str, object], None]) -> None:
    ended = stable.ask(mutant.name)
    record_property("measured", f"mutant {mutant.name}: {ended}")
    assert ended.killed, f"{mutant.name} survived {', '.join(mutant.tests)}"
