"""`gpulease export`: what is handed over verifies, is private, and is not made of a proof that does not hold."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provisioner import closing, ledger
from provisioner.cli import app
from provisioner.evidence import bundle, verify
from provisioner.evidence.files import Unreadable
from tests.evidence.bundles import copy, files_of
from tests.evidence.test_redact import told

LEASE = "r-20261118t120640z-7f3a9k2m"


@pytest.fixture
def proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    ledger.create({"provider": "aws", "settings": {"region": "us-east-1"}, "deadline": "2026-11-18T12:51:40.000Z"}, LEASE)
    return copy("normal", ledger.root() / "runs" / f"{LEASE}.evidence")


def test_a_proof_is_handed_over_as_one_private_file_that_verifies(proof: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "--json"])
    record = json.loads(done.stdout)
    path = tmp_path / f"{LEASE}.evidence.zip"
    assert (
        done.exit_code == 0 and record["path"] == path.name and record["bytes"] == path.stat().st_size and record["tier"] == "client-signed"
    )
    assert path.stat().st_mode & 0o777 == 0o600 and verify.verify(path).exit == 0
    first = path.read_bytes()
    assert CliRunner().invoke(app, ["export", LEASE[-8:], "--to", "again.zip"]).exit_code == 0
    assert (tmp_path / "again.zip").read_bytes() == first


def test_a_proof_that_does_not_hold_is_not_handed_over(proof: Path, tmp_path: Path) -> None:
    (proof / "results.json").write_bytes(b"{}")
    done = CliRunner().invoke(app, ["export"])
    assert done.exit_code == 5 and "does not hold" in done.stderr and "results.json" in done.stderr
    assert not list(tmp_path.glob("*.zip"))


def test_where_it_cannot_be_written_is_said(proof: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "--to", "/nowhere/at/all.zip"])
    assert done.exit_code == 4 and "/nowhere/at/all.zip cannot be written" in done.stderr


@pytest.mark.parametrize("name", ["p.txt", "p", "p.PDF"])
def test_a_name_that_does_not_say_what_is_written_is_refused(name: str, proof: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", "--to", name])
    assert done.exit_code == 2 and f"--to is {name}" in done.stderr and not (tmp_path / name).exists()


def test_an_ssh_key_signs_as_well_and_whoever_names_it_gets_its_word(proof: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    done = CliRunner().invoke(app, ["export", "--to", "b.zip", "--sign-ssh", "key"])
    assert done.exit_code == 0, done.stderr
    (tmp_path / "signers").write_text("alice " + (tmp_path / "key.pub").read_text())
    checked = CliRunner().invoke(app, ["verify", "b.zip", "--allowed-signers", "signers"])
    assert checked.exit_code == 0 and "vouched for as alice" in checked.stdout
    (tmp_path / "signers").write_text("alice " + json.loads(CliRunner().invoke(app, ["export", "--json"]).stdout)["allowedSigners"][4:])
    assert CliRunner().invoke(app, ["verify", "b.zip", "--allowed-signers", "signers"]).exit_code == 0
    (tmp_path / "signers").write_text("# nobody\n")
    assert CliRunner().invoke(app, ["verify", "b.zip", "--allowed-signers", "signers"]).exit_code == 2
    (tmp_path / "signers").write_text("alice\n")
    assert CliRunner().invoke(app, ["verify", "b.zip", "--allowed-signers", "signers"]).exit_code == 3


def test_a_key_of_the_agent_signs(proof: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        for _ in range(100):  # until it listens
            if subprocess.run(["ssh-add", "-q", tmp_path / "key"], capture_output=True).returncode == 0:
                break
        (tmp_path / "key").unlink()
        done = CliRunner().invoke(app, ["export", "--to", "b.zip", "--sign-ssh", "agent"])
        assert done.exit_code == 0, done.stderr
        assert verify.verify(tmp_path / "b.zip").ssh.startswith("SHA256:")
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.parametrize("key", ["missing", "agent"])
def test_a_key_that_does_not_sign_stops_it_and_says_why(key: str, proof: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    done = CliRunner().invoke(app, ["export", "--sign-ssh", key])
    assert done.exit_code == 4 and ("did not sign" in done.stderr or "cannot be listed" in done.stderr) and not list(tmp_path.glob("*.zip"))


def test_a_proof_that_cannot_be_read_any_more_does_not_stand_in_the_way_of_a_new_one(proof: Path) -> None:
    run = ledger.root() / "runs" / LEASE
    for name, data in bundle.members(proof).items():
        if name in ("journal.jsonl", *bundle.COVERED):
            (run / name).write_bytes(data)
    os.mkfifo(proof / "pipe")
    with pytest.raises(Unreadable):
        bundle.members(proof)
    closing.prove(ledger.find(LEASE))
    assert bundle.members(proof) and not list(proof.parent.glob("*.before-*"))


def test_a_copy_without_names_verifies_and_says_what_it_costs_and_where_its_openings_are(proof: Path, tmp_path: Path) -> None:
    run = ledger.root() / "runs" / LEASE
    tape = told()
    (run / "journal.jsonl").write_bytes(tape.bytes)
    for name, data in files_of(tape).items():
        (run / name).write_bytes(data)
    bundle.seal(run, proof, ledger.private(ledger.root() / "keys"), version="1.0.0")
    done = CliRunner().invoke(app, ["export", "--redact", "--to", "b.zip"])
    assert done.exit_code == 0 and "it costs" in done.stdout and "b.zip.openings.json" in done.stdout, done.stderr
    assert (tmp_path / "b.zip.openings.json").stat().st_mode & 0o777 == 0o600
    assert "198.51.100.77" in (tmp_path / "b.zip.openings.json").read_text()
    assert b"198.51.100.77" not in (tmp_path / "b.zip").read_bytes() and b"openings" not in (tmp_path / "b.zip").read_bytes()
    report = verify.verify(tmp_path / "b.zip")
    assert report.exit == 0 and report.predicate is not None and report.predicate["supersedes"], report.text()
    first = (tmp_path / "b.zip").read_bytes()
    assert CliRunner().invoke(app, ["export", "--redact", "--to", "b.zip"]).exit_code == 0
    assert (tmp_path / "b.zip").read_bytes() == first
    for words in (["export", "--redact"], ["export"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / f"{LEASE}.evidence.redacted.zip").read_bytes() == first, "the full proof lies where the copy without names was"
    assert b"198.51.100.77" in (tmp_path / f"{LEASE}.evidence.zip").read_bytes()
