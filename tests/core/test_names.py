"""What a cloud says of whose account it is does not enter the journal in clear, and nothing that is read again is lost."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from provisioner.journal import Journal, read
from provisioner.lease import Lease, release
from provisioner.ledger import LeaseFolder, adopt
from provisioner.model import Verdict
from provisioner.names import HIDDEN, OPENINGS, Names, commitment, opened, openings
from provisioner.providers.sim import SimClock, SimProvider
from provisioner.scope import SystemClock
from tests.core.torture import LEASE, SPEC

ACCOUNT, ARN, ADDRESS = "640917385526", "arn:aws:sts::640917385526:assumed-role/admin/alice.example", "198.51.100.77"
SAID = f"User: {ARN} is not authorized to perform: ec2:RunInstances from {ADDRESS}; account {ACCOUNT}"


def written(folder: Path, kind: str = "failure", /, **body: object) -> dict[str, object]:
    with Journal(folder / "journal.jsonl", SystemClock()) as journal:
        journal.append(kind, dict(body))  # type: ignore[arg-type]
    entry: dict[str, object] = read(folder / "journal.jsonl").entries[-1]["body"]
    return entry


def test_words_of_somebody_elses_lose_the_account_the_caller_and_the_address(tmp_path: Path) -> None:
    body = written(tmp_path, error="NotPermitted", why=SAID, what=f"no such group in {ACCOUNT}")
    text = (tmp_path / "journal.jsonl").read_text()
    assert not [name for name in (ACCOUNT, ARN, ADDRESS, "alice") if name in text]
    assert str(body["why"]).startswith("User: sha256:") and " is not authorized to perform: ec2:RunInstances from sha256:" in str(
        body["why"]
    )
    rows = {row["value"]: row for row in map(json.loads, (tmp_path / OPENINGS).read_text().splitlines())}
    assert set(rows) == {ACCOUNT, ARN, ADDRESS}
    for value, row in rows.items():
        assert commitment(row["field"], value, bytes.fromhex(row["salt"])) == row["commitment"] and row["commitment"] in text
        assert len(row["salt"]) == 32
    assert stat.S_IMODE((tmp_path / "openings.jsonl").stat().st_mode) == 0o600


FACTS = {"address": ADDRESS, "imageOwner": ACCOUNT, "privateAddress": "172.31.7.9", "imageId": "ami-1"}


def test_the_machines_address_and_the_account_of_its_image_are_closed_and_can_be_opened(tmp_path: Path) -> None:
    body = written(tmp_path, "observe", **{"class": "instance", "id": "i-1", "facts": FACTS})
    text = (tmp_path / "journal.jsonl").read_text()
    assert ADDRESS not in text and ACCOUNT not in text and body["id"] == "i-1"
    facts = cast(dict[str, str], body["facts"])
    assert facts | FACTS == facts | {"address": ADDRESS, "imageOwner": ACCOUNT}, "what was made in the account's own network stays"
    assert set(openings(tmp_path / OPENINGS).values()) == {("address", ADDRESS), ("accountId", ACCOUNT)}
    assert [opened(tmp_path / OPENINGS, facts[name]) for name in HIDDEN] == [ADDRESS, ACCOUNT]
    assert stat.S_IMODE((tmp_path / OPENINGS).stat().st_mode) == 0o600


def test_what_a_later_process_reads_stays_as_it_is(tmp_path: Path) -> None:
    said = {"class": "instance", "id": ARN, "state": "running", "region": ADDRESS, "facts": {"note": ADDRESS}}
    assert written(tmp_path, "observe", **said) == said and not (tmp_path / OPENINGS).exists()


def test_a_line_that_is_read_back_and_written_again_is_not_closed_twice(tmp_path: Path) -> None:
    first = written(tmp_path, "observe", facts=FACTS)["facts"]
    assert written(tmp_path, "observe", facts=first)["facts"] == first == written(tmp_path, "observe", facts=FACTS)["facts"]
    assert len(openings(tmp_path / OPENINGS)) == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS syncs by fcntl, and has no /proc")
def test_an_opening_is_on_disk_before_the_line_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def sync(fd: int) -> None:
        real(fd)
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    with Journal(tmp_path / "journal.jsonl", SystemClock()) as journal:
        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append("the line"))
        journal.append("observe", {"facts": {"address": ADDRESS}})
    assert synced == [OPENINGS, tmp_path.name, "the line"]


def test_an_opening_that_does_not_open_or_is_torn_is_none_and_the_next_is_kept_all_the_same(tmp_path: Path) -> None:
    made = cast(dict[str, str], written(tmp_path, "observe", facts=FACTS)["facts"])
    rows = (tmp_path / OPENINGS).read_text()
    (tmp_path / OPENINGS).write_text(rows.replace(ADDRESS, "203.0.113.66") + '{"commitment": "sha2')
    assert opened(tmp_path / OPENINGS, made["address"]) == "" and opened(tmp_path / OPENINGS, made["imageOwner"]) == ACCOUNT
    again = cast(dict[str, str], written(tmp_path, "observe", facts=FACTS)["facts"])
    assert again["address"] != made["address"] and opened(tmp_path / OPENINGS, again["address"]) == ADDRESS


DAMAGE = {
    "none": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "noise": lambda path: path.write_bytes(os.urandom(3000)),
    "other json": lambda path: path.write_text('[]\n7\nnull\n{"field": 1, "value": [], "salt": "zz", "commitment": {}}\n{"field": {}}\n'),
    "too deep": lambda path: path.write_text("[" * 200_000),
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("/nowhere/at all"),
    "a disk that fails": lambda path: path.symlink_to("/proc/self/mem"),  # a file whose every read is EIO
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_openings_that_are_lost_or_damaged_stop_no_letting_go(damage: str, tmp_path: Path) -> None:
    clock = SimClock()
    cloud = SimProvider(clock)
    told = cloud._as
    cloud._as = lambda thing: replace(told(thing), facts={**told(thing).facts, "address": ADDRESS})  # type: ignore[method-assign]
    journal_of_a_crash = tmp_path / "journal.jsonl"
    with Journal(journal_of_a_crash, clock) as journal:
        Lease(LEASE, cloud, journal, clock).create("instance", SPEC)
    (tmp_path / OPENINGS).unlink()
    DAMAGE[damage](tmp_path / OPENINGS)
    with adopt(LeaseFolder(tmp_path), "watchdog", clock) as journal:  # as reap does, and release
        assert release(LEASE, cloud, journal, clock) is Verdict.RELEASED and journal.unwritten is None
    assert not cloud.world.billed() and ADDRESS not in journal_of_a_crash.read_text()


def test_the_same_value_has_one_commitment_in_a_lease_and_another_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, again, other = written(tmp_path / "a", why=ARN), written(tmp_path / "a", why=ARN), written(tmp_path / "b", why=ARN)
    assert first["why"] == again["why"] != other["why"]


@pytest.mark.parametrize(
    "credential",
    [
        "hf_abcdefghijklmnop",
        "sk-proj-abcdefghijkl",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_0123456789abcdef",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\ncut off",
    ],
)
def test_what_looks_like_a_credential_is_gone_for_good(credential: str, tmp_path: Path) -> None:
    assert written(tmp_path, why=f"refused: {credential} (no)")["why"] in ("refused: [secret] (no)", "refused: [secret]")
    assert not (tmp_path / "openings.jsonl").exists()
    assert Names(tmp_path / "o").hidden("Authorization: Bearer abc.def-ghi_jkl=") == "Authorization: Bearer [secret]"


@pytest.mark.parametrize(
    "words", ["23034 MiB; needs 40 GiB", "listens on 127.0.0.1:8000 and 0.0.0.0", "vllm 0.33.0 at 2026-11-18", "i-0a1b2c3d4e5f60718"]
)
def test_other_words_stay(words: str, tmp_path: Path) -> None:
    assert written(tmp_path, why=words) == {"why": words}


def test_a_disk_that_takes_no_opening_costs_the_opening_and_not_the_line(tmp_path: Path) -> None:
    (tmp_path / "openings.jsonl").mkdir()
    assert str(written(tmp_path, why=ACCOUNT)["why"]).startswith("sha256:")
    assert os.listdir(tmp_path / "openings.jsonl") == []


def test_words_made_longer_still_fit(tmp_path: Path) -> None:
    assert len(str(written(tmp_path, why=f"{ADDRESS} " * 130)["why"])) <= 2001
