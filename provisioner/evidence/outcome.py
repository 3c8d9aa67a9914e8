"""What a verification found: layers, problems, and the tier that was reached. `verify` fills it, `say` tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence import tiers
from provisioner.evidence.keyless import Signed
from provisioner.evidence.messages import UNREADABLE, UNTRUSTED, Problem
from provisioner.evidence.timestamp import Stamp
from provisioner.model import Json


@dataclass(frozen=True)
class Layer:
    name: str
    state: str  # "ok", "failed", "not run"
    why: str = ""


@dataclass
class Report:
    """What was found. `tier` is the strongest that was reached, "" for none."""

    path: str
    require: str
    layers: list[Layer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    predicate: dict[str, Any] | None = None  # only when it was signed, in form, and of a kind we know
    keyid: str = ""
    vouched: str = ""  # by whom: a principal of the allowed signers, or the trusted key's id
    ssh: str = ""  # the fingerprint of the key in statement.sshsig
    not_covered: list[str] = field(default_factory=list)
    stamp: Stamp | None = None  # by when it existed, where an authority says so that whoever verifies trusts
    keyless: Signed | None = None  # whose sigstore signature it has, where whoever verifies asked for just that one
    shown: set[str] = field(default_factory=set)  # the tiers above the first whose own material held
    bill: dict[str, Any] | None = None  # the second statement's predicate, when it holds

    @property
    def tier(self) -> str:
        return tiers.climbed({"client", *self.shown}) if self.predicate is not None and not self.problems else ""

    @property
    def exit(self) -> int:
        """0 consistent and the tier reached, 1 contradiction or tampering, 2 intact and not reached, 3 unreadable."""
        codes = {p.code for p in self.problems}
        if codes - UNREADABLE - UNTRUSTED:
            return 1
        if codes & UNREADABLE:
            return 3
        return 2 if codes or not tiers.reaches(self.tier, self.require) else 0

    def text(self) -> str:
        """In words; see `say`."""
        from provisioner.evidence import say

        return say.text(self)

    def json(self) -> dict[str, Json]:
        from provisioner.evidence import say

        return say.document(self)
