"""What a cloud says of whose account it is does not enter the journal in clear, and nothing that is read again is lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from provisioner.journal import Journal, read
from provisioner.names import Names, commitment
from provisioner.scope import SystemClock

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
    opened = {row["value"]: row for row in map(json.loads, (tmp_path / "openings.jsonl").read_text().splitlines())}
    assert set(opened) == {ACCOUNT, ARN, ADDRESS}
    for value, row in opened.items():
        assert commitment(row["field"], value, bytes.fromhex(row["salt"])) == row["commitment"] and row["commitment"] in text
        assert len(row["salt"]) == 32
    assert stat.S_IMODE((tmp_path / "openings.jsonl").stat().st_mode) == 0o600


def test_what_a_later_process_reads_stays_as_it_is(tmp_path: Path) -> None:
    facts = {"address": ADDRESS, "imageOwner": ACCOUNT}
    said = {"class": "instance", "id": ARN, "state": "running", "facts": facts}
    assert written(tmp_path, "observe", **said) == said and not (tmp_path / "openings.jsonl").exists()


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
