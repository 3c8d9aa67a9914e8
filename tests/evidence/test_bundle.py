"""The folder that is handed over: whole or not at all, private, and made of what is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provisioner.errors import RunError
from provisioner.evidence import bundle, render, verify
from provisioner.journal import Journal
from provisioner.lease import hold
from provisioner.model import LaunchSpec, Requirements
from provisioner.providers.sim import SimClock, SimProvider
from tests.evidence import journals
from tests.evidence.bundles import copy, files_of, keys, state, write
from tests.evidence.journals import FILES, LEASE, Tape


def run_folder(path: Path, tape: Tape, **files: bytes) -> Path:
    path.mkdir()
    for name, data in {"journal.jsonl": tape.bytes, **{n.replace("_", "."): d for n, d in files.items()}, **files_of(tape)}.items():
        (path / name).write_bytes(data)
    return path


def test_everything_in_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = write(tmp_path / "b", journals.normal())
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["statement.dsse.json", "signer.pub.json", "journal.jsonl", "results.json", "samples.jsonl", "report.md", "report.html"]
    )


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write(tmp_path / n, journals.normal()) for n in ("one", "two"))
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_a_new_proof_takes_the_place_of_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "b", journals.held())
    write(tmp_path / "b", journals.normal())
    assert [p.name for p in tmp_path.iterdir()] == ["b"] and verify.verify(tmp_path / "b").exit == 0
    assert b"released" in (tmp_path / "b" / "report.md").read_bytes()


def test_a_proof_that_could_not_be_written_leaves_the_old_one_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", journals.held())
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    made = state(journals.normal())
    with pytest.raises(ValueError, match="not a name"):
        bundle.write(folder, made, bundle.sign.sign(made, keys()), b"", {"../escape": b""})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and [p.name for p in tmp_path.iterdir()] == ["b"]


def test_seal_makes_the_proof_of_a_leases_folder_from_what_the_journal_sealed(tmp_path: Path) -> None:
    run = run_folder(tmp_path / LEASE, journals.normal(), server_log=b"not to be handed over", api_key=b"secret")
    made = bundle.seal(run, tmp_path / f"{LEASE}.evidence", keys(), version="1.0.0")
    assert verify.verify(tmp_path / f"{LEASE}.evidence").exit == 0
    assert [s["name"] for s in made["subject"]] == ["journal.jsonl", "README.md", *sorted(FILES)]
    assert not (tmp_path / f"{LEASE}.evidence" / "server.log").exists()


def test_seal_leaves_the_torn_end_of_a_journal_out(tmp_path: Path) -> None:
    run = run_folder(tmp_path / LEASE, journals.held())
    with (run / "journal.jsonl").open("ab") as file:
        file.write(b'{"at":{"wal')
    bundle.seal(run, tmp_path / "e", keys(), version="1.0.0")
    assert verify.verify(tmp_path / "e").exit == 0


@pytest.mark.parametrize("spoil", ["missing", "broken", "another file than was sealed"])
def test_what_cannot_be_proven_is_an_error_that_says_why(spoil: str, tmp_path: Path) -> None:
    run = run_folder(tmp_path / LEASE, journals.normal())
    match spoil:
        case "missing":
            (run / "journal.jsonl").unlink()
        case "broken":
            (run / "journal.jsonl").write_bytes(b"{}\n")
        case _:
            (run / "results.json").write_bytes(b"{}")
    with pytest.raises(RunError, match="no proof could be made") as caught:
        bundle.seal(run, tmp_path / "e", keys(), version="1.0.0")
    assert caught.value.why and not (tmp_path / "e").exists()


def test_a_lease_that_the_engine_itself_released_can_be_proven(tmp_path: Path) -> None:
    """The real engine, the real journal, a simulated cloud; no line of it written by this test's own hand but the first."""
    clock, lease = SimClock(1_795_000_000.0), LEASE
    cloud = SimProvider(clock)
    run = tmp_path / lease
    run.mkdir(mode=0o700)
    with Journal(run / "journal.jsonl", clock) as journal:
        journal.append("genesis", {"lease": lease, "provider": "sim", "settings": cloud.settings(), "simulated": True})
        with hold(lease, cloud, journal, clock) as held:
            spec = LaunchSpec(cloud.offers(Requirements())[0], 60, "2030-11-21T15:00:00Z")
            for kind in cloud.steps(spec):
                held.create(kind, spec)
            clock.sleep(30)
            held.look(held.made["instance"])
            clock.sleep(600)
        assert held.verdict == "released"
    made = bundle.seal(run, tmp_path / "e", keys(), version="1.0.0")["predicate"]
    report = verify.verify(tmp_path / "e")
    assert report.exit == 0 and report.text().startswith("VERDICT  SIMULATED, client-signed. ")
    assert made["clean"] and {r["final"] for r in made["resources"]} == {"deleted"} and made["instances"][0]["stopCause"] == "client"
    assert len(made["anchors"]) == 2


def test_the_page_in_the_bundle_is_what_its_statement_renders_to(tmp_path: Path) -> None:
    folder = copy("normal", tmp_path / "b")
    assert (folder / "report.md").read_bytes() == render.report(state(journals.normal()), FILES["results.json"])
