"""What a lease's folder says, for people: tables for a terminal, a page, and several leases side by side.

A `Record` is a lease as its files tell it: the statement that its journal leads to (signed or not), the results, and
what the raw samples give when every figure is computed from them once more. Figures that the samples do not confirm
are named, not shown as if nothing were wrong.

It reads; it never asks a provider and never writes. The page for one lease is `evidence.render`, because the verifier
has to be able to make it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provisioner.errors import RunError
from provisioner.evidence import chain, measured, render
from provisioner.evidence.bundle import stated
from provisioner.evidence.files import FILE_LIMIT, Folder, Unreadable
from provisioner.evidence.history import Nonsense
from provisioner.journal import Entry
from provisioner.model import Json

PRODUCER = {"name": "gpulease", "version": "report"}


@dataclass(frozen=True)
class Record:
    """One lease. `statement` is derived, not signed: `gpulease verify` is for what was signed."""

    statement: dict[str, Json]
    results: bytes | None
    doubts: list[str] = field(default_factory=list)  # figures that the samples do not confirm
    interruptions: list[str] = field(default_factory=list)  # machines that were taken back, one sentence each
    going_on: bool = False  # somebody has the lease: what the journal says is not how it ended

    @property
    def predicate(self) -> dict[str, Any]:
        return dict(self.statement["predicate"])

    @property
    def id(self) -> str:
        return str(self.predicate["run"]["id"])

    def record(self) -> dict[str, Json]:
        """For `--json`."""
        return {
            "lease": self.id,
            "predicate": self.predicate,
            "results": self.measured or None,
            "doubts": self.doubts,
            "interruptions": self.interruptions,
            "goingOn": self.going_on,
        }

    @property
    def measured(self) -> dict[str, Any]:
        return measured.read(self.results)


def load(folder: Path) -> Record:
    """A lease's own folder, or its evidence folder."""
    try:
        with Folder(folder) as files:
            read = chain.read(files.read("journal.jsonl", chain.FILE_LIMIT))
            results = files.read("results.json", render.RESULTS_LIMIT) if "results.json" in files.names else None
            samples = files.read("samples.jsonl", FILE_LIMIT) if "samples.jsonl" in files.names else None
            digests = {name: files.sha256(name) for name in sealed(read) if name in files.names}
            said = {name: files.read(name, FILE_LIMIT) for name in files.names if name.startswith("aws/")}
        if results is not None:
            digests.setdefault("results.json", _sha256(results))
        beside = said if results is None else said | {"results.json": results}
        statement = stated(read.entries, digests, PRODUCER, beside)
    except (Unreadable, chain.Broken, Nonsense) as e:
        raise RunError(f"no report can be made of {folder}", why=e.problem.message, next=f"gpulease verify {folder}") from None
    return Record(statement, results, doubts(measured.read(results), samples), interruptions(read.entries))


def sealed(read: chain.Chain) -> list[str]:
    """The files that the journal's last seal names."""
    seals = [e["body"].get("files") for e in read.entries if e["kind"] == "seal"]
    return [str(name) for name in seals[-1]] if seals and isinstance(seals[-1], dict) else []


def interruptions(entries: Sequence[Entry]) -> list[str]:
    """When a machine was taken back, what had been answered by then, and where the run went on if it did."""
    said: list[str] = []
    seen: set[str] = set()
    after = False
    for e in entries:
        body = e["body"]
        if e["kind"] == "failure" and body.get("error") == "Interrupted":
            said.append(f"{e['at']['wall'][11:19]} UTC: {body.get('what')}; {body.get('why')}")
            after = True
        elif e["kind"] in ("done", "observe") and body.get("class") == "instance" and (id := str(body.get("id"))) not in seen:
            seen.add(id)
            if after:
                facts = body.get("facts")
                zone = facts.get("zone") if isinstance(facts, dict) else None
                said[-1] += f"; it went on in {zone or body.get('region')}, on {id}"
                after = False
    return said


def doubts(results: dict[str, Any], samples: bytes | None) -> list[str]:
    """Latency figures that differ from what the raw samples give, in words; empty when they agree or there are none."""
    if samples is None or not results:
        return []
    from provisioner.evals.samples import NotSample, read, settled
    from provisioner.evals.stats import figures

    try:
        every = read(samples.decode("utf-8", "replace").splitlines())
    except NotSample as e:
        return [f"samples.jsonl cannot be read: {e}"]
    found: list[str] = []
    for vantage, stats in measured.vantages(results):
        again = figures(settled([s for s in every if s.vantage == vantage]))
        for name, value in sorted(stats.items()):
            if name.endswith("Ns") and again.get(name) != value:
                found.append(f"{vantage} {name} is {value} in results.json; the samples give {again.get(name, 'no such figure')}")
    return found


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
