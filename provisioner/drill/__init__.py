"""Make each layer of the guarantee fire, with all the others switched off, and say who ended the machine and how late.

A guard that was never seen firing is a hope. `gpulease drill` shows each of them in a rehearsal, judged by the cloud's own
record; `--live` does the same on a real account, on the smallest machine there is, for cents, and notes the day in
drills.json, which `doctor` and every later proof quote. A drill fails when nobody ended the machine, when somebody else
than its layer did, or when the proof says anything that the cloud does not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioner.drill.layers import LAYERS, NAMES, Layer
from provisioner.drill.one import Row
from provisioner.errors import Exit, UsageError
from provisioner.render import SIMULATED, table
from provisioner.scope import Scope, cry, signals
from provisioner.terminal import complain

Coded = tuple[int, dict[str, Any], str]


def drill_layers(
    only: Sequence[str], on_an_account: bool, region: str | None, aws_profile: str | None, endpoint: str | None, words: str | None
) -> Coded:
    """What the command does: rehearsed, or with --live on an account."""
    if on_an_account:
        from provisioner.clouds import default_region

        return drill_live(only, region or ("us-east-1" if endpoint else default_region(aws_profile)), aws_profile, endpoint, words)
    given = {"--region": region, "--aws-profile": aws_profile, "--endpoint": endpoint, "--confirm": words}
    if useless := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"{useless[0]} needs --live", why="a rehearsed drill has a cloud of its own", next="gpulease drill")
    return drill_rehearsed(only)


def drill_rehearsed(only: Sequence[str]) -> Coded:
    from provisioner.drill.rehearsed import rehearse

    wanted = chosen(only, live=False)
    scope, began = Scope(), time.monotonic()
    complain(f"{SIMULATED}\n{len(wanted)} drill(s), each with a cloud of its own; about a minute and a half")
    with tempfile.TemporaryDirectory(prefix="gpulease-drill-") as folder, signals(scope, lambda text: cry(f"{text}: ending the drills")):
        rows = rehearse(wanted, Path(folder), scope.sleep, teller(began))
    return answer(rows, simulated=True, seconds=int(time.monotonic() - began))


def drill_live(only: Sequence[str], region: str, aws_profile: str | None, endpoint: str | None, words: str | None) -> Coded:
    """For money, after the amount was typed. With an endpoint the same against a rehearsal."""
    from cost import show
    from provisioner.drill import live
    from provisioner.terminal import typed

    wanted = chosen(only, live=True)
    there = live.site(region, aws_profile, endpoint)
    live.check_login(there, wanted)
    scope, began = Scope(), time.monotonic()
    with live.state(complain) as folder:
        total = live.ceiling(there, wanted, folder)
        complain(SIMULATED if endpoint else f"account {there.account}, {there.arn}")
        names = ", ".join(layer.name for layer in wanted)
        complain(f"{len(wanted)} drill(s) on {live.TYPE} with {there.image} in {region}, {live.AT_ONCE} at a time: {names}")
        complain(f"at most {show(total)} together, at list prices, if every machine is ended by its last line of defence")
        live.confirmed(total, words, typed)
        with signals(scope, lambda text: cry(f"{text}: letting go of every machine first")):
            rows = live.drill_all(there, wanted, scope.sleep, teller(began), folder)
    return answer(rows, simulated=there.simulated, seconds=int(time.monotonic() - began))


def chosen(only: Sequence[str], *, live: bool) -> list[Layer]:
    if unknown := [name for name in only if name not in NAMES]:
        raise UsageError(f"no layer is called {unknown[0]!r}", why=f"known: {', '.join(NAMES)}", next="gpulease drill --only watchdog")
    there = [layer for layer in LAYERS if _can(layer) and (layer.live or not live)]
    wanted = [layer for layer in there if not only or layer.name in only]
    if not wanted:
        why = "a real account" if live else "the schedule at the provider is not there"
        raise UsageError(f"{only[0]} cannot be drilled here", why=why, next=f"one of {', '.join(e.name for e in there)}")
    return wanted


def _can(layer: Layer) -> bool:
    from provisioner.providers.aws import AwsProvider

    return not layer.needs_schedule or bool(getattr(AwsProvider("us-east-1").traits, "schedules", False))


def teller(began: float) -> Any:
    def tell(name: str, text: str) -> None:
        complain(f"{time.monotonic() - began:6.1f} s  {name:<15} {text}")

    return tell


def answer(rows: Sequence[Row], *, simulated: bool, seconds: int) -> Coded:
    bad = [row for row in rows if not row.good]
    held = [row for row in rows if any(text.startswith("still there") for text in row.wrong)]
    code = int(Exit.OK if not bad else Exit.HELD if held and not simulated else Exit.FAILED)
    record = {
        "schema": "gpulease/drill/1",
        "simulated": simulated,
        "seconds": seconds,
        "drills": [row.record() for row in rows],
        "exit": code,
    }
    head, *lines = table([_cells(row) for row in rows], ("ended by", "late", "the proof says", "")).splitlines()
    text = "\n".join([head, *(f"{line}\n  after: {row.layer.failure}" for line, row in zip(lines, rows, strict=True))])
    for row in bad:
        text += "\n\n" + "\n".join(f"{row.layer.name}: {words}" for words in row.wrong)
    text += f"\n\n{len(rows) - len(bad)} of {len(rows)} drills ended as they should, in {seconds} s"
    return code, record, f"{SIMULATED}\n\n{text}" if simulated else text


def _cells(row: Row) -> list[str]:
    proof = f"{row.proof.get('verdict')}, stopped by {row.proof.get('stopCause')}" if row.proof else "nothing"
    late = "" if row.late_s is None else f"{row.late_s} s"
    return [row.ended_by or "NOBODY", late, proof, "" if row.good else "WRONG, see below"]
