"""What AWS knows, asked after a run and laid beside its proof: through the commands, against the rehearsal's own record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from provisioner.errors import Exit
from provisioner.evidence import verify
from provisioner.evidence.canonical import dumps
from tests.life.conftest import Bench


def asked(bench: Bench, *words: str) -> tuple[int, dict[str, Any]]:
    ended = bench.end(bench.start(*words, "--json"))
    assert ended.answer, ended.story
    return ended.code, ended.answer


def test_a_proof_climbs_from_the_machines_document_to_the_bill_and_a_second_journal_is_found_out(bench: Bench) -> None:
    assert bench.run().code == Exit.OK
    first = verify.verify(bench.folder.evidence, "identified")
    assert first.exit == 0 and first.text().startswith("VERDICT  SIMULATED, AWS-identified. ")
    assert bench.entries("anchor")[-1]["call"] == "GetCallerIdentity"

    _, shown = asked(bench, "report")
    assert "no-identity-document" not in shown["leases"][0]["predicate"]["limits"], "a report knows what lies beside the journal"

    code, whole = asked(bench, "proof", "corroborate")
    assert (code, whole["verify"]["tier"]) == (0, "AWS-corroborated"), whole["verify"]["warnings"]
    assert whole["events"] >= 5 and bench.statement()["supersedes"]["sha256"]
    code, billed = asked(bench, "proof", "reconcile")
    assert (code, billed["verify"]["tier"]) == (0, "billed") and billed["bill"]["comparison"] == "inside", billed["bill"]

    report = (bench.folder.evidence / "report.html").read_text()
    assert "SIMULATED, AWS-corroborated" in report

    # Asked for the lookups alone, AWS's signed files stay where they are; and there is nothing to keep of a proof that lost nothing.
    code, again = asked(bench, "proof", "corroborate", "--lookups-only")
    assert (code, again["verify"]["tier"]) == (0, "billed") and kept(bench) == []

    # A look more makes the journal longer than what AWS was asked about: the better proof is kept, and found again by asking.
    ended = bench.end(bench.start("release", bench.folder.id, "--json"))
    assert ended.code == Exit.OK and verify.verify(bench.folder.evidence).tier == "identified"
    (before,) = kept(bench)
    assert verify.verify(before, "billed").exit == 0
    told = f"the proof was billed, and AWS-identified is what this one shows; the one before is kept: {before}; `gpulease proof corroborate"
    assert told in ended.story
    code, again = asked(bench, "proof", "corroborate")
    assert (code, again["verify"]["tier"]) == (0, "billed") and kept(bench) == [before]

    # The owner of the key writes another story over the same events of AWS's.
    lines = [json.loads(line) for line in bench.folder.journal.read_text().splitlines()]
    lines[0]["body"]["budgetMicroUsd"] += 1
    bench.folder.journal.write_bytes(chained(lines))
    code, forged = asked(bench, "proof", "corroborate", "--lookups-only")
    assert code == 1 and "E605" in {p["code"] for p in forged["verify"]["problems"]}


def kept(bench: Bench) -> list[Path]:
    return sorted(bench.folder.path.parent.glob("*.before-*.zip"))


def chained(entries: list[dict[str, Any]]) -> bytes:
    """A journal that is whole again after it was edited."""
    head, made = "0" * 64, b""
    for entry in entries:
        line = dumps(entry | {"prev": head}) + b"\n"
        head, made = hashlib.sha256(line).hexdigest(), made + line
    return made
