"""Samples for tests, with only what a test cares about said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provisioner.evals.samples import Sample

MS = 1_000_000


def sample(
    *, sent: int = 0, ttft: int = 10 * MS, gaps: Sequence[int] = (5 * MS,), tokens: int | None = 0, error: str | None = None, **more: Any
) -> Sample:
    """Sent at `sent` ns; first chunk `ttft` later, then one chunk per gap. `tokens=0`: one per chunk."""
    stamps = [sent + ttft]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    fields: dict[str, Any] = {
        "case": "a",
        "n": 0,
        "vantage": "host",
        "warmup": False,
        "intended_ns": sent,
        "connect_ns": MS,
        "sent_ns": sent,
        "first_ns": stamps[0],
        "chunks": tuple((at, 4) for at in stamps),
        "done_ns": stamps[-1],
        "status": 200,
        "finish": "stop",
        "text": "text",
        "tokens_in": 7,
        "tokens_out": len(stamps) if tokens == 0 else tokens,
        "error": error,
    }
    return Sample(**{**fields, **more})
