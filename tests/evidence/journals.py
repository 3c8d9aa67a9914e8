"""Runs that could have happened, as journals. Each function is one story; `STORIES` has them all."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.evidence.tape import AHEAD_MS, ENI, INST, KINDS, LEASE, PRODUCER, REGION, SG, START_MS, VOL, Tape, text

__all__ = ["AHEAD_MS", "ENI", "FILES", "INST", "KINDS", "LEASE", "PRODUCER", "REGION", "SG", "START_MS", "STORIES", "VOL", "Tape", "text"]


def measured(ttft: int) -> dict[str, Any]:
    right = {"right": 5, "scored": 6, "accuracyPerMille": 833, "accuracyLowPerMille": 436, "accuracyHighPerMille": 970}
    return {
        "sent": 6,
        "failed": 0,
        "errorsPerMille": 0,
        "ttftP50Ns": ttft,
        "ttftP90Ns": ttft * 2,
        "e2eP50Ns": ttft * 9,
        "outputMilliTokensPerS": 61_250,
        **right,
        "tags": {"arithmetic": right},
        "absent": {"ttftP95Ns": "needs 200 samples; there are 6", "ttftP99Ns": "needs 1000 samples; there are 6"},
    }


def results() -> bytes:
    scores = [
        {"case": f"arith-{n:02d}", "n": n, "vantage": v, "ok": n != 3, "checks": [{"type": "number", "ok": n != 3, "why": ""}]}
        for n in range(1, 7)
        for v in ("host", "tunnel")
    ]
    value = {
        "schema": "gpulease/results/1",
        "evalSet": {"name": "smoke", "sha256": "1" * 64, "cases": 6},
        "scores": scores,
        "stats": {"host": measured(81_200_000), "tunnel": measured(96_700_000)},
        "thresholds": [{"name": "accuracy_percent", "limit": 50, "got": 83, "ok": True}],
    }
    return json.dumps(value, indent=1).encode()


FILES = {"results.json": results(), "samples.jsonl": b'{"case":"arith-01"}\n'}


def normal() -> Tape:
    return Tape().genesis().guards().launch().run().release().quiet().verdict().end(files=FILES)


def somebody_else() -> Tape:
    """In an account where others work: a volume of somebody's, more snapshots than are looked at, and addresses that may not be listed."""
    tape = Tape().genesis().guards()
    before = [looked(kind) | {"found": n} for n, kind in enumerate(KINDS)]
    before += [looked("snapshot", why="too many: more than 2000"), looked("elastic-ip")]
    tape.add("baseline", classes=before, sha256="ab" * 32)
    tape.launch().run().release().quiet().verdict()
    after = [looked(kind, new=int(kind == "volume")) for kind in KINDS]
    after += [looked("snapshot", why="before the launch: too many: more than 2000"), looked("elastic-ip", why="AWS answered AccessDenied")]
    tape.add("unfiltered", classes=after)
    return tape.end(files=FILES)


def looked(kind: str, *, ours: int = 0, new: int | None = None, why: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {"class": kind, "regions": [REGION], "checked": not why, "ours": ours}
    return row | ({"reason": why} if why else {}) | ({} if new is None else {"newUnexplained": new})


def rehearsal() -> Tape:
    settings = {"region": REGION, "endpoint": "http://127.0.0.1:4566"}
    return Tape().genesis(simulated=True, settings=settings).guards().launch().run().release().quiet(0.4).verdict(settle=0).end(files=FILES)


def static() -> Tape:
    settings = {"host": "user@203.0.113.9", "port": 22, "identity": "/home/user/.ssh/id", "hostKey": "ssh-ed25519 AAAA"}
    price = {"microUsdPerHour": 0, "source": "yours", "asOf": "2026-11-18"}
    offer = {"provider": "static", "region": "", "type": "host", "gpu": "L4", "gpus": 1, "vcpus": 4, "spot": False, "price": price}
    tape = Tape().genesis(provider="static", settings=settings, offer=offer, quote={"lines": []})
    intent = tape.intent("host-lock", type="host", region="", zone=None)
    tape.add(
        "done",
        op="create",
        intentSeq=intent,
        class_="host-lock",
        id="lock-1",
        phase="here",
        state="held",
        billed=False,
        region="",
        facts={},
    )
    tape.wait(200)
    removal = tape.add("intent", op="remove", class_="host-lock", id="lock-1")
    tape.add("done", op="remove", intentSeq=removal, class_="host-lock", id="lock-1", state="absent")
    tape.add("observe", class_="host-lock", id="lock-1", phase="gone", state="absent", billed=False, region="", facts={})
    for _ in range(2):
        tape.add("sweep", checked=True, classes=[{"class": "host-lock", "region": "", "checked": True, "found": 0}], found=0, requestIds=[])
        tape.wait(2.5)
    return tape.verdict().end(files=FILES)


def failed_verify() -> Tape:
    tape = Tape().genesis().guards().launch().wait(25)
    tape.observe("instance", INST, "here", "running", type="g6.xlarge")
    tape.add("stage", stage="verify", state="failed", detail={})
    tape.add("failure", error="RunError", what="23034 MiB; needs 40 GiB", why="nvidia-smi")
    return tape.release().quiet().verdict().end("failed", {})


def recovered_by_watchdog() -> Tape:
    tape = Tape().genesis().guards().launch().run()
    tape.mono = 5_000  # another process, after the laptop was started again
    tape.wait(60)
    tape.add("recovered", by="watchdog", tornSha256=hashlib.sha256(b'{"at":{"wa').hexdigest())
    return tape.release().quiet().verdict().end("recovered", {})


def held() -> Tape:
    tape = Tape().genesis().guards().launch().run()
    tape.sweep({"instance": 1, "security-group": 1})
    tape.remove("instance", INST, answer="failed")
    tape.wait(900)
    tape.sweep({"instance": 1, "security-group": 1})
    left = [{"class": "instance", "id": INST, "phase": "here"}]
    return tape.verdict("held", settle=0, left=left).end("failed", {})


def unproven_open_intent() -> Tape:
    tape = Tape().genesis().guards()
    intent = tape.intent("instance")
    tape.wait(30)
    tape.add("unknown", op="create", intentSeq=intent, class_="instance", why="read timeout")
    tape.sweep()
    tape.wait(5)
    tape.blind()
    return tape.verdict("unproven", settle=0, intents=1).end("failed", {})


def released_after_lost_answer() -> Tape:
    tape = Tape().genesis().guards()
    intent = tape.intent("instance")
    tape.wait(30)
    tape.add("unknown", op="create", intentSeq=intent, class_="instance", why="read timeout")
    for _ in range(24):
        tape.sweep()
        tape.wait(15)
    return tape.verdict(settle=345, intents=1).end("failed", {})


def lost_answer_found_by_token() -> Tape:
    tape = Tape().genesis().guards()
    intent = tape.intent("instance")
    tape.wait(30)
    tape.add("unknown", op="create", intentSeq=intent, class_="instance", why="read timeout")
    tape.observe("instance", INST, "here", "running", token=tape.entries[intent]["body"]["token"], type="g6.xlarge")
    tape.sweep({"instance": 1})
    tape.remove("instance", INST)
    tape.wait(30)
    tape.observe("instance", INST, "gone", "terminated", stateReason="Client.UserInitiatedShutdown")
    return tape.quiet().verdict().end("failed", {})


def refused_then_launched() -> Tape:
    tape = Tape().genesis().guards()
    intent = tape.intent("instance")
    tape.wait(1)
    tape.add(
        "failed",
        op="create",
        intentSeq=intent,
        class_="instance",
        code="InsufficientInstanceCapacity",
        why="no capacity in us-east-1a",
        requestId="req-x",
    )
    return tape.launch(zone="us-east-1b").run().release().quiet().verdict().end(files=FILES)


def guest_powered_off() -> Tape:
    tape = Tape().genesis().guards().launch().run()
    return tape.release("Client.InstanceInitiatedShutdown").quiet().verdict().end("guard-fired", {})


def leaving() -> Tape:
    tape = Tape().genesis().guards().launch().run()
    tape.sweep({"instance": 1, "security-group": 1})
    tape.remove("instance", INST)
    tape.wait(10)
    tape.observe("instance", INST, "leaving", "shutting-down")
    tape.sweep({"instance": 1, "security-group": 1})
    return tape.verdict("leaving", settle=0).end("failed", {})


def never_launched() -> Tape:
    return Tape().genesis().verdict(settle=0).end("never-launched", {})


def rebuilt() -> Tape:
    tape = Tape()
    tape.add("genesis", lease=LEASE, provider="aws", settings={"region": REGION}, rebuilt=True, brokenSha256="2" * 64)
    tape.add("recovered", by="reap")
    tape.observe("instance", INST, "here", "running", type="g6.xlarge")
    tape.sweep({"instance": 1})
    tape.remove("instance", INST)
    tape.wait(40)
    tape.observe("instance", INST, "gone", "terminated")
    return tape.quiet(310).verdict("unproven", settle=310)


STORIES = {
    f.__name__: f
    for f in (
        normal,
        somebody_else,
        rehearsal,
        static,
        failed_verify,
        recovered_by_watchdog,
        held,
        unproven_open_intent,
        released_after_lost_answer,
        lost_answer_found_by_token,
        refused_then_launched,
        guest_powered_off,
        leaving,
        never_launched,
        rebuilt,
    )
}
