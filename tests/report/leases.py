"""Lease folders with real samples: the figures in results.json are what the stats make of samples.jsonl."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from provisioner.evals import cases, score, stats
from provisioner.evals.samples import Sample
from tests.evidence import journals
from tests.evidence.journals import Tape

SET = "\n".join(
    json.dumps(
        {
            "id": f"sum-{n}",
            "tags": ["arithmetic" if n % 2 else "sum"],
            "messages": [{"role": "user", "content": "?"}],
            "checks": [{"type": "exact", "value": "4"}],
            "gold": "4",
        }
    )
    for n in range(30)
)


def asked(vantage: str, delay_ns: int) -> list[Sample]:
    made = []
    for n in range(30):
        sent = n * 200_000_000
        chunks = tuple((sent + delay_ns + k * 10_000_000, 1) for k in range(5))
        text = "4" if n % 5 else "\x1b[2J<b>5</b> | shutdown proof OK"
        made.append(
            Sample(f"sum-{n}", n, vantage, False, sent, 1000, sent, chunks[0][0], chunks, chunks[-1][0] + 1, 200, "stop", text, 9, 5, None)
        )
    return made


def folder(path: Path, *, spoil: bool = False, **genesis: Any) -> Path:
    path.mkdir()
    (path / "set.jsonl").write_text(SET)
    evals = cases.load(str(path / "set.jsonl"))
    passes = {"host": asked("host", 80_000_000), "tunnel": asked("tunnel", 95_000_000)}
    scored = {v: score.scores(evals.cases, samples) for v, samples in passes.items()}
    figures = {v: stats.figures(samples, scored[v], cases=evals.cases) for v, samples in passes.items()}
    if spoil:
        figures["host"]["ttftP50Ns"] -= 30_000_000
    results = {
        "schema": "gpulease/results/1",
        "scores": [one.public() for v in passes for one in scored[v]],
        "stats": figures,
        "thresholds": [{"name": "accuracy_percent", "limit": "90", "got": "80", "ok": False, "why": "80 is below 90", "vantage": "host"}],
    }
    files = {
        "results.json": json.dumps(results).encode(),
        "samples.jsonl": b"".join(json.dumps(s.public()).encode() + b"\n" for samples in passes.values() for s in samples),
    }
    for name, data in files.items():
        (path / name).write_bytes(data)
        assert hashlib.sha256(data).hexdigest()
    tape = Tape().genesis(**genesis).guards().launch().run().release().quiet().verdict().end(files=files)
    (path / "journal.jsonl").write_bytes(tape.bytes)
    return path


def bare(path: Path, story: str) -> Path:
    """A lease that measured nothing."""
    path.mkdir()
    (path / "journal.jsonl").write_bytes(journals.STORIES[story]().bytes)
    return path
