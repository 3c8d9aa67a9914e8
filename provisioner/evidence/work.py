"""What the layers of a verification hand to each other, and the two ways in which one ends early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence import chain, keyless
from provisioner.evidence.files import Source
from provisioner.evidence.history import History
from provisioner.evidence.listprice import Lists
from provisioner.evidence.messages import Problem
from provisioner.evidence.outcome import Report
from provisioner.evidence.sshsig import Signer


@dataclass
class Work:
    """What the layers hand to each other. None: an earlier layer failed."""

    folder: Source
    report: Report
    trusted: frozenset[str] | None
    signers: Sequence[Signer] | None
    raw: dict[str, bytes] = field(default_factory=dict)
    payload: bytes | None = None
    statement: dict[str, Any] | None = None
    chain: chain.Chain | None = None
    history: History | None = None
    rebuilt: dict[str, Any] | None = None
    agreed: bool = False  # what was rebuilt is what was stated
    results: bytes | None = None
    uncounted: bool = False  # the statement counts results that are not there, or were changed
    aws: dict[str, bytes] = field(default_factory=dict)
    certificates: Sequence[bytes] = ()
    cloudtrail_keys: Sequence[bytes] = ()
    authorities: Sequence[bytes] = ()
    sigstore: keyless.Asked | None = None
    lists: Lists | None = None


class Failed(Exception):
    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems[0].message if problems else "")
        self.problems = problems


class Skipped(Exception):
    """Not run, because of something already reported."""
