"""The main job, as a user starts it, and what it leaves behind."""

from __future__ import annotations

import json
import stat

import pytest

from provisioner.errors import Exit
from tests.life.conftest import Bench


def test_the_whole_life_ends_in_a_proof_that_verifies(bench: Bench) -> None:
    ended = bench.run()
    assert ended.code == Exit.OK, ended.story
    assert ended.answer["verdict"] == "released" and ended.answer["simulated"] is True
    assert not bench.left()
    assert bench.verify() == 0
    stages = [b["stage"] for b in bench.entries("stage") if b["state"] == "done"]
    assert stages == ["launch", "connect", "verify", "serve", "tunnel", "eval"]
    for vantage in ("host", "tunnel"):
        stats = ended.answer["results"]["stats"][vantage]
        assert stats["sent"] == stats["succeeded"] >= 24 and stats["ttftP50Ns"] > 0


def test_nothing_private_is_readable_by_others_and_no_secret_is_kept(bench: Bench) -> None:
    assert bench.run().code == Exit.OK
    for path in bench.state.rglob("*"):
        if not path.name.endswith(".pub") and path.name != "known_hosts" and "rehearsal" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    kept = {p.name for p in bench.folder.path.rglob("*")}
    assert not kept & {"api.key", "client_ed25519", "host_ed25519"}
    for path in [*(path for path in bench.folder.evidence.rglob("*") if path.is_file()), bench.folder.journal]:
        assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_every_request_to_the_cloud_carries_the_journals_head(bench: Bench) -> None:
    assert bench.run().code == Exit.OK
    heads = {json.loads(line)["prev"][:32] for line in bench.folder.journal.read_text().splitlines()}
    asked = [call for call in bench.cloud.log() if call["action"] in ("RunInstances", "TerminateInstances", "DeleteSecurityGroup")]
    assert len(asked) >= 3
    for call in asked:
        assert any(f"jh/{head}" in call["userAgent"] for head in heads), call


@pytest.mark.slow
def test_a_proof_that_was_touched_no_longer_verifies(bench: Bench) -> None:
    assert bench.run().code == Exit.OK
    for name in ("journal.jsonl", "results.json", "samples.jsonl", "report.md"):
        path = bench.folder.evidence / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"1", b"2", 1))
        assert bench.verify() == 1, name
        path.write_bytes(whole)
    assert bench.verify() == 0


def test_what_cannot_be_understood_costs_nothing(bench: Bench) -> None:
    for words, code in (
        (["run", "smok", "--rehearse", "--yes"], Exit.USAGE),
        (["run", "smoke", "--rehearse", "--yes", "--budget", "0.05"], Exit.REFUSED),
        (["run", "smoke", "--rehearse", "--yes", "--budget", "lots"], Exit.USAGE),
        (["run", "smoke", "--rehearse"], Exit.USAGE),  # no terminal to ask on
        (["run", "smoke", "--no-such-flag"], Exit.USAGE),
        (["release", "r-nothing"], Exit.USAGE),
        (["proof"], Exit.REFUSED),
    ):
        process = bench.start(*words, *(["--endpoint", bench.cloud.endpoint] if "--rehearse" in words else []))
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, (words, err)
        assert "Traceback" not in err and err.strip(), words
    assert not bench.folders()
    assert not [thing for thing in bench.cloud.truth() if thing.get("lease")]


def test_a_state_folder_that_others_can_read_is_refused(bench: Bench) -> None:
    (bench.state / "gpulease").mkdir(parents=True)
    (bench.state / "gpulease").chmod(0o755)
    ended = bench.end(bench.start(*bench.run_words()))
    assert ended.code == Exit.REFUSED
    assert "mode 755" in ended.answer["what"] and "chmod 700" in ended.answer["next"]
