"""A journal written line by line as `journal.py` writes it, on a clock of its own.

`wait` lets time pass; every line carries the local time and the one that nobody sets. Provider dates come from the
same clock, 0.4 s ahead of the local one and cut to whole seconds, as HTTP does it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

START_MS = 1_795_000_000_000
AHEAD_MS = 400
LEASE = "r-20261118t120640z-7f3a9k2m"
REGION = "us-east-1"
KINDS = ("instance", "volume", "network-interface", "security-group")
PRODUCER = {"name": "gpulease", "version": "1.0.0", "pythonVersion": "3.11.9"}
INST, VOL, ENI, SG = "i-0a1b2c3d4e5f60718", "vol-0a1b2c3d4e5f60718", "eni-0a1b2c3d4e5f60718", "sg-0a1b2c3d4e5f60718"


def text(ms: int, *, whole: bool = False) -> str:
    from provisioner.evidence.canonical import rfc3339

    return rfc3339(ms // 1000 * 1000).replace(".000Z", "Z") if whole else rfc3339(ms)


class Tape:
    def __init__(self, start_ms: int = START_MS) -> None:
        self.now, self.mono = start_ms, 1_000_000
        self.lines: list[bytes] = []
        self.entries: list[dict[str, Any]] = []
        self.head = "0" * 64
        self.aws: dict[str, bytes] = {}  # files under aws/ that lie beside the journal

    def wait(self, seconds: float) -> Tape:
        self.now += int(seconds * 1000)
        self.mono += int(seconds * 1000)
        return self

    def date(self) -> str:
        return text(self.now + AHEAD_MS, whole=True)

    def add(self, kind: str, **body: Any) -> int:
        self.wait(0.05)
        seq = len(self.lines)
        named = {name.rstrip("_"): value for name, value in body.items() if value is not None}
        entry = {"at": {"wall": text(self.now), "monoMs": self.mono}, "body": named, "kind": kind, "prev": self.head, "seq": seq, "v": 1}
        line = rfc8785.dumps(entry) + b"\n"
        self.lines.append(line)
        self.entries.append(entry)
        self.head = hashlib.sha256(line).hexdigest()
        return seq

    @property
    def bytes(self) -> bytes:
        return b"".join(self.lines)

    def genesis(self, **more: Any) -> Tape:
        price = {"microUsdPerHour": 804_800, "source": "AWS price list, us-east-1", "asOf": "2026-11-01"}
        body: dict[str, Any] = {
            "lease": LEASE,
            "provider": "aws",
            "settings": {"region": REGION},
            "profile": {"name": "smoke", "sha256": hashlib.sha256(b"profile").hexdigest()},
            "deadline": text(self.now + 2_700_000),
            "maxRunSeconds": 2700,
            "budgetMicroUsd": 1_000_000,
            "offer": {
                "provider": "aws",
                "region": REGION,
                "zone": "us-east-1a",
                "type": "g6.xlarge",
                "gpu": "L4",
                "gpus": 1,
                "vcpus": 4,
                "spot": False,
            }
            | {"price": price},
            "quote": {
                "lines": [
                    {"name": "instance", "microUsdPerHour": 804_800, "fixedMicroUsd": 0, "source": price["source"], "asOf": price["asOf"]},
                    {
                        "name": "disk",
                        "microUsdPerHour": 7143,
                        "fixedMicroUsd": 0,
                        "microUsdPerHourLow": 6451,
                        "source": "gp3",
                        "asOf": "2026-11-01",
                    },
                    {"name": "public-ipv4", "microUsdPerHour": 5000, "fixedMicroUsd": 0, "source": "ipv4", "asOf": "2026-11-01"},
                ],
                "expectedMicroUsd": 210_000,
                "atMostMicroUsd": 980_000,
                "expectedSeconds": 900,
            },
            "producer": PRODUCER,
            "simulated": False,
            "waived": [],
        }
        self.add("genesis", **{k: v for k, v in (body | more).items() if v is not None})
        return self

    def guards(self) -> Tape:
        fires = text(self.now + 2_700_000)
        self.add("guard", guard="watchdog", state="armed", firesAt=fires)
        self.add("guard", guard="watchdog", state="read-back")
        return self

    def intent(self, kind: str, **params: Any) -> int:
        token = f"{LEASE[-8:]}-{len(self.lines)}-{self.head[:32]}"
        public = {"type": "g6.xlarge", "region": REGION, "zone": "us-east-1a", "spot": False, "diskGib": 60} | params
        return self.add("intent", op="create", class_=kind, token=token, params=public)

    def done(self, intent: int, id: str, state: str = "pending", phase: str = "coming", **facts: Any) -> int:
        body = self.entries[intent]["body"]
        facts = {"requestId": f"req-{intent}", "providerDate": self.date()} | facts
        return self.add(
            "done",
            op="create",
            intentSeq=intent,
            class_=body["class"],
            id=id,
            phase=phase,
            state=state,
            token=body["token"],
            billed=body["class"] == "instance",
            region=REGION,
            facts=facts,
        )

    def observe(self, kind: str, id: str, phase: str, state: str, *, token: str | None = None, **facts: Any) -> int:
        said = {"requestId": "req-d", "providerDate": self.date()} | facts
        return self.add(
            "observe",
            class_=kind,
            id=id,
            phase=phase,
            state=state,
            token=token,
            billed=kind in ("instance", "volume"),
            region=REGION,
            facts=said,
        )

    def sweep(self, found: dict[str, int] | None = None, *, kinds: tuple[str, ...] = KINDS, unchecked: dict[str, str] | None = None) -> int:
        rows: list[dict[str, Any]] = [{"class": k, "region": REGION, "checked": True, "found": (found or {}).get(k, 0)} for k in kinds]
        rows += [{"class": k, "region": REGION, "checked": False, "reason": why, "found": 0} for k, why in (unchecked or {}).items()]
        return self.add(
            "sweep", checked=True, classes=rows, found=sum((found or {}).values()), requestIds=["req-s"], providerDate=self.date()
        )

    def blind(self) -> int:
        return self.add("sweep", checked=False, classes=[], found=0, requestIds=[], error="DescribeInstances: AccessDenied")

    def remove(self, kind: str, id: str, *, answer: str = "done") -> int:
        seq = self.add("intent", op="remove", class_=kind, id=id)
        self.wait(0.3)
        asked = {"op": "remove", "class_": kind, "id": id, "intentSeq": seq}
        if answer == "done":
            return self.add("done", **asked, requestId=f"req-{seq}", providerDate=self.date(), state="shutting-down")
        return self.add("failed", **asked, code="DependencyViolation", why="still in use", requestId=f"req-{seq}")

    def launch(self, **params: Any) -> Tape:
        group = self.intent("security-group", **params)
        self.wait(0.4)
        self.done(group, SG, "exists", "here")
        machine = self.intent("instance", **params)
        self.wait(1.5)
        self.done(machine, INST, type="g6.xlarge", imageId="ami-0123456789abcdef0", launchTime=self.date())
        return self

    def run(self, type_: str = "g6.xlarge") -> Tape:
        self.wait(25)
        token = next(e["body"]["token"] for e in reversed(self.entries) if e["kind"] == "intent")
        launched = next((e["body"]["facts"]["launchTime"] for e in self.entries if "launchTime" in e["body"].get("facts", {})), None)
        facts = {"type": type_, "address": "203.0.113.9", **({"launchTime": launched} if launched else {})}
        self.observe("instance", INST, "here", "running", token=token, **facts)
        self.add("guard", guard="guest-timer", state="read-back", firesAt=text(START_MS + 2_700_000))
        for stage in ("connect", "verify", "serve", "eval"):
            self.add("stage", stage=stage, state="begin", detail={})
            self.wait(60)
            self.add("stage", stage=stage, state="done", detail={})
        return self

    def release(self, reason: str = "Client.UserInitiatedShutdown") -> Tape:
        self.observe("volume", VOL, "here", "in-use", instance=INST)
        self.observe("network-interface", ENI, "here", "in-use", instance=INST)
        self.sweep({"instance": 1, "volume": 1, "network-interface": 1, "security-group": 1})
        self.remove("instance", INST)
        self.remove("security-group", SG, answer="failed")
        self.wait(10)
        self.observe("instance", INST, "leaving", "shutting-down", stateReason=reason)
        self.sweep({"instance": 1, "security-group": 1})
        self.wait(20)
        self.observe("instance", INST, "gone", "terminated", stateReason=reason, stateTransitionReason="User initiated")
        self.observe("volume", VOL, "gone", "not-found")
        self.observe("network-interface", ENI, "gone", "not-found")
        self.sweep({"security-group": 1})
        self.remove("security-group", SG)
        self.wait(2)
        self.observe("security-group", SG, "gone", "not-found")
        return self

    def quiet(self, seconds: float = 2.2, **how: Any) -> Tape:
        self.sweep(**how)
        self.wait(seconds)
        self.sweep(**how)
        return self

    def verdict(self, verdict: str = "released", *, settle: int = 2, intents: int = 0, left: list[Any] | None = None) -> Tape:
        self.add("verdict", verdict=verdict, left=left or [], settleSeconds=settle, openIntents=intents)
        return self

    def witnessed(self) -> Tape:
        """The sealed head is shown to the provider's log."""
        head = self.head[:32]
        self.wait(0.2)
        self.add("anchor", call="GetCallerIdentity", head=head, requestId="req-last", providerDate=self.date())
        return self

    def end(self, outcome: str = "completed", files: dict[str, bytes] | None = None) -> Tape:
        self.add("outcome", outcome=outcome, exit=0)
        sealed = {name: hashlib.sha256(data).hexdigest() for name, data in (files or {}).items()}
        self.add("seal", files=sealed, spend={})
        return self
