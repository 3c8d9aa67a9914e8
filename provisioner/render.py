"""Words for people: the story on stderr, errors in four parts, plans and lists. Never raises, decides nothing.

One line per event with the time and what has been spent so far; words over symbols; nothing needs a colour to be
understood. Every string that came from a machine, a model or a provider goes through `clean` first.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import cost
from provisioner.clean import clean
from provisioner.errors import GpuleaseError
from provisioner.plan import Plan, minutes, offer_text
from provisioner.scope import takes

TO_PASTE = frozenset({"keep"})
"""Stages whose lines hold a command: whoever pastes it must not paste a line break."""

_PROSE = re.compile(
    r"error: |  (?:why|now): +|(?:profile|machine|else|price|source|cost|time|too dear|note|verdict|no proof) +(?=\S)"
    r"|(?:VERDICT|NOT SHOWN)  |(?:ok|WRONG|unknown|not asked) {2,}\S.{0,40}?  +| {9}(?=[^\s\"{}\[\]])"
)
"""What a line of ours begins with that is a sentence. No command, no path to copy and no JSON begins so."""

SIMULATED = "SIMULATED: an embedded cloud on this machine; no account, no GPU, no money"


QUIET_S = 30.0
"""The longest silence where there is no terminal, while something is waited for; on one, what is waited for is shown each second."""


class Story:
    """The run, line by line, as it happens. On a terminal a line that is replaced may follow the last one (a progress bar, what is
    waited for); elsewhere there are only lines."""

    def __init__(self, out: TextIO | None = None, spent: Callable[[], str] = lambda: "", now: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stderr
        self.spent = spent
        self._live = self._out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._bar = False
        self._now, self._said = now, now()
        try:
            self._fd: int | None = self._out.fileno()
        except (OSError, ValueError):
            self._fd = None  # not a file of the system's: it takes everything

    def tell(self, stage: str, text: str) -> None:
        self._wipe()
        self._said = self._now()
        begin = f"{time.strftime('%H:%M:%S', time.gmtime())}  {stage:<8}  "
        if not self._live or stage in TO_PASTE:
            self._write(f"{begin}{clean(text):<70}  {self.spent()}".rstrip() + "\n")
            return
        # What was spent stands at the right of the first line; a text that is too long goes on below its own beginning.
        spent = self.spent()
        room = max(20, shutil.get_terminal_size().columns - len(begin) - len(spent) - 3)
        first, *more = textwrap.wrap(clean(text), room, break_long_words=False, break_on_hyphens=False) or [""]
        lines = [f"{begin}{first:<{min(70, room)}}  {spent}".rstrip(), *(" " * len(begin) + line for line in more)]
        self._write("\n".join(lines) + "\n")

    def progress(self, stage: str, done: int, total: int) -> None:
        """A bar that is replaced by the next line; silent where there is no terminal."""
        if not self._live or total <= 0:
            return
        full = round(24 * done / total)
        bar = "#" * full + "." * (24 - full)
        self._replaced(stage, f"[{bar}] {done}/{total}")

    def waited(self, stage: str, text: str) -> None:
        """What is waited for, when nothing else was said for a while."""
        if self._now() - self._said < (1.0 if self._live else QUIET_S):
            return
        if self._live:
            self._replaced(stage, clean(text))
        else:
            self.tell(stage, text)

    def _replaced(self, stage: str, text: str) -> None:
        self._said = self._now()
        line = f"{time.strftime('%H:%M:%S', time.gmtime())}  {stage:<8}  {text}  {self.spent()}"
        # A line that is wider than the terminal would leave its beginning behind each time.
        self._write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K", within=0.0)
        self._bar = True

    def _wipe(self) -> None:
        if self._bar:
            self._write("\r\x1b[K")
            self._bar = False

    def _write(self, text: str, within: float = 0.2) -> None:
        # The terminal may be gone (SIGHUP), or stopped (Ctrl-S): the story then has a gap, the run must not.
        with contextlib.suppress(OSError, ValueError):
            if self._fd is None or takes(self._fd, within):
                self._out.write(text)
                self._out.flush()


def folded(text: str, columns: int | None) -> str:
    """The text for a terminal of so many columns: a sentence that is too long goes on below its own beginning, between words.

    None: not a terminal, so each line stays one. A line that may be copied (a command, a path, JSON) is never folded.
    """
    if columns is None:
        return text
    return "\n".join(_fold(line, columns) if len(line) > columns else line for line in text.split("\n"))


def _fold(line: str, columns: int) -> str:
    if not (found := _PROSE.match(line)):
        return line
    begin = found[0]
    room = max(20, columns - len(begin))
    lines = textwrap.wrap(line[len(begin) :], room, break_long_words=False, break_on_hyphens=False)
    return begin + f"\n{' ' * len(begin)}".join(lines)


def error_text(e: GpuleaseError, now: str = "") -> str:
    """What, why, next, and what it costs right now."""
    what, *more = [clean(part) for part in e.what.splitlines()] or [""]
    lines = [f"error: {what}", *(f"       {part}" for part in more)]
    for label, text in (("why", e.why), ("next", e.next), ("now", now)):
        if text:
            first, *rest = [clean(part) for part in text.splitlines()] or [""]
            lines.append(f"  {label + ':':<6} {first}")
            lines += [f"         {part}" for part in rest]
    return "\n".join(lines)


def error_record(e: GpuleaseError, now: str) -> dict[str, Any]:
    """The same for a program."""
    words = {"what": e.what, "why": e.why, "next": e.next, "now": now}
    return {"schema": "gpulease/error/1", "error": type(e).__name__, **words, "exit": int(e.code)}


def plan_text(plan: Plan) -> str:
    """The plan as a person decides on it."""
    offer, profile = plan.offer, plan.profile
    gpu = f"{offer.gpus} × {offer.gpu}" + (f", {offer.vram_mib} MiB each" if offer.vram_mib else "") if offer.gpus else "no GPU"
    rows = [
        ("profile", f"{profile.name}: {profile.model.id} on {profile.runtime.name}, eval set {profile.eval.set}"),
        ("machine", f"{offer.type} ({gpu}) at {offer.provider} {offer.zone or offer.region}, {how_bought(plan)}"),
        (
            "price",
            ("" if offer.market is None else f"the spot market asks {cost.show_per_hour(offer.market.micro_usd_per_hour)}; at most ")
            + f"{cost.show_per_hour(plan.quote.micro_usd_per_hour)}: "
            + ", ".join(f"{i.name} {cost.show_per_hour(i.micro_usd_per_hour)}" for i in plan.quote.lines if i.micro_usd_per_hour),
        ),
        ("source", f"{offer.price.source}, {offer.price.as_of}{_age(offer.price.as_of)}"),
        (
            "cost",
            f"about {cost.show(plan.expected_micro_usd)}, at most {cost.show(plan.at_most_micro_usd)} "
            f"of the budget of {cost.show(plan.budget_micro_usd)}",
        ),
        ("time", f"gone at the latest {minutes(plan.max_seconds)} after the launch"),
    ]
    if more := [offer_text(one) for one in plan.offers[1:]]:
        rows.insert(2, ("else", f"{'; '.join(more[:3])}" + (f"; and {len(more) - 3} more" if len(more) > 3 else "")))
    if plan.left_out:
        rows.append(("too dear", "; ".join(plan.left_out[:3]) + (f"; and {len(plan.left_out) - 3} more" if len(plan.left_out) > 3 else "")))
    rows += [("note", note) for note in plan.notes]
    if plan.simulated:
        rows.insert(0, ("", SIMULATED))
    return table(rows)


def cost_text(spend: cost.Spend | None) -> str:
    """Best guess, bounds, and what they were reckoned with."""
    if spend is None:
        return "cannot be told: no price is known for what was there"
    amounts = f"{cost.show(spend.best)} ({cost.show(spend.lo, up=False)} to {cost.show(spend.hi)}"
    basis = cost.basis((line.name, line.source, line.as_of) for line in spend.lines)
    return clean(f"{amounts}, {basis})" if basis else f"{amounts})", limit=600)


def how_bought(plan: Plan) -> str:
    return ("spot" if plan.offer.spot else "on demand") + (", through a fleet" if plan.profile.launch.fleet else "")


def _age(as_of: str) -> str:
    """How old a price is, said aloud; nothing for one of today."""
    try:
        days = cost.age_days(as_of, datetime.now(UTC).date())
    except ValueError:
        return ", of no date that can be read"
    old = f": older than {cost.STALE_DAYS} days, it may have changed" if days > cost.STALE_DAYS else ""
    return f" ({days} days old{old})" if days > 0 else ""


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Columns as wide as they need to be, left-aligned, two spaces apart."""
    grid = [[clean(str(cell)) for cell in row] for row in ([header] if header else []) + [list(r) for r in rows]]
    if not grid:
        return ""
    columns = max(len(row) for row in grid)
    widths = [max((len(row[i]) for row in grid if i < len(row)), default=0) for i in range(columns)]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in grid)
