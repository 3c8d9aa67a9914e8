"""Every bit of every file of a bundle, flipped one by one: found, or what was flipped says nothing.

What each file is caught by is asked of the layer that catches it, over a bundle that was read once; the whole of `verify`
over a sample of the same flips is in test_auditor. The envelope and its key are in test_sign, the packing in test_archive.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Callable, Iterator

import pytest

from provisioner.evidence import bundle, chain, sign, verify
from provisioner.evidence.canonical import loads
from provisioner.evidence.files import Folder
from tests.evidence.bundles import keys
from tests.evidence.journals import LEASE, STORIES
from tests.evidence.test_bundle import run_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = tmp_path_factory.mktemp("bits")
    bundle.seal(run_folder(base / LEASE, STORIES["normal"]()), base / "b", keys(), version="1.0.0")
    with Folder(base / "b") as folder:
        return {name: folder.read(name, 1 << 20) for name in folder.names}


def flips(data: bytes, step: int) -> Iterator[tuple[bytes, int]]:
    """Each with one bit flipped, and the byte in which it is."""
    spoilt = bytearray(data)
    for bit in range(0, len(data) * 8, step):
        spoilt[bit // 8] ^= 1 << bit % 8
        yield bytes(spoilt), bit // 8
        spoilt[bit // 8] ^= 1 << bit % 8


def chained(honest: bytes) -> Callable[[bytes, int], bool]:
    """Without its digest: is a changed line refused, or the chain behind it broken by its other digest?"""
    ends = [0]
    heads = ["0" * 64]
    for line in honest.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
        heads.append(hashlib.sha256(line).hexdigest())

    def found(data: bytes, place: int) -> bool:
        seq = bisect.bisect_right(ends, place) - 1
        line = data[ends[seq] : ends[seq + 1]]
        if not line.endswith(b"\n"):
            line = data[ends[seq] : data.find(b"\n", ends[seq]) + 1 or len(data)]  # it runs into the next one
        try:
            chain._entry(line, seq, ends[seq], heads[seq])
        except chain.Broken:
            return True
        return hashlib.sha256(line).hexdigest() != heads[seq + 1]

    return found


def caught(name: str, whole: dict[str, bytes]) -> Callable[[bytes, int], bool]:
    """Is this content of that file found out?"""
    unchained = chained(whole["journal.jsonl"])
    made = loads(sign.opened(whole["statement.dsse.json"], whole["signer.pub.json"])[0])
    rendered = {page: render(made, whole["results.json"]) for page, render in verify.RENDERED.items()}
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in made["subject"]}

    def found(data: bytes, place: int) -> bool:
        if name in rendered:
            return data != rendered[name]
        if name in ("statement.dsse.json", "signer.pub.json"):
            pair = (data, whole["signer.pub.json"]) if name == "statement.dsse.json" else (whole["statement.dsse.json"], data)
            try:
                sign.opened(*pair)
            except sign.Unsigned:
                return True
            return False
        if hashlib.sha256(data).hexdigest() == subjects[name]:
            return False
        return name != "journal.jsonl" or unchained(data, place)

    return found


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(211, id="some")])
def test_every_flipped_bit_of_every_file_is_found(step: int, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign, "_verifier", functools.cache(sign._verifier))  # what a key file says depends on its bytes alone
    looked = 0
    for name in whole:
        found = caught(name, whole)
        assert not found(whole[name], 0) or name == "journal.jsonl"
        for data, place in flips(whole[name], step):
            assert found(data, place), f"{name}: a bit of byte {place} can be flipped unseen"
            looked += 1
    assert looked >= sum(len(data) * 8 // step for data in whole.values())
    assert len(whole) == 8
