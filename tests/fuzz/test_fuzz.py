"""What the fuzzer kept, played again: `python -m tests.fuzz` looks for more, guided by coverage."""

from __future__ import annotations

import pytest

from tests.fuzz import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_parser_refuses_in_its_own_words_whatever_it_is_given(name: str) -> None:
    for data in [b"", *targets.seeds(name), *targets.kept(name)]:
        targets.TARGETS[name](data)


def test_the_corpus_is_of_these_parsers_and_small() -> None:
    files = {path.stem: path for path in targets.KEPT.glob("*.json")}
    assert files.keys() <= {*targets.TARGETS, "stamped"}
    assert sum(path.stat().st_size for path in files.values()) < 400_000
