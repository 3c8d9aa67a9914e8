"""Every bundle that was ever kept is found to be what it was found to be: exit code, tier, codes and exact messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.evidence import verify
from tests.evidence import corpus
from tests.evidence.test_auditor import agree

MORE = {"bad/files-mixed-5000051": ["E301", "E401"]}
"""What a later version finds besides, where it looks further: each is a bundle that was refused before, with the same exit code.
Here the results are another's, and that hid from the reader of 1.0 that the rest of the statement is another's too."""

VERSIONS = sorted(path.name.removesuffix(".json") for path in corpus.FOLDER.glob("*.json"))


@pytest.fixture(scope="module", params=VERSIONS)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.unpacked(request.param, folder)
    return request.param, folder


def test_each_bundle_is_found_to_be_what_it_was_found_to_be(kept: tuple[str, Path]) -> None:
    version, folder = kept
    expected = corpus.expected(version)
    for name, what in expected.items():
        found = corpus.found(verify.verify(folder / name), folder / name)
        more = [problem for problem in found["problems"] if problem not in what["problems"]]
        found["problems"] = [problem for problem in found["problems"] if problem not in more]
        assert found == what and [problem[:4] for problem in more] == MORE.get(name, []), name
    assert sum(name.startswith("good/") for name in expected) >= 30 and sum(name.startswith("bad/") for name in expected) >= 200


def test_the_script_for_sceptics_agrees_on_each(kept: tuple[str, Path]) -> None:
    version, folder = kept
    for name in corpus.expected(version):
        if (folder / name).is_dir():
            agree(folder / name)


def test_together_they_meet_most_of_what_can_be_wrong() -> None:
    codes = {problem.split()[0] for version in VERSIONS for one in corpus.expected(version).values() for problem in one["problems"]}
    assert len(codes) >= 20, sorted(codes)
