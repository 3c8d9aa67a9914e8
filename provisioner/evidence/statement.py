"""Journal in, in-toto Statement out: every field is derived from the entries and the digests of the files, by nothing else.

That is the idea of the whole proof. The builder and the verifier call this one function, so a signed field that the
journal does not lead to is found whoever signed it; what is left to a forger is to invent a whole consistent journal,
and that is what the higher tiers are for. Nothing is copied from the journal's own conclusions except its verdict and
its outcome, which are shown as its words: `clean` is worked out here, from what was looked at and found.

Rules of the format: no floats, whole numbers below 2^53, units in names, times RFC 3339 with a Z, strength only ever
as something present. A later version of the derivation must keep this one beside it, by `schemaMinor`: a statement
made today has to verify for ever.

This file must not open anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import cost
from cost import intervals, line_of, meter
from provisioner.evidence import besides, corroboration, render, scheduled
from provisioner.evidence.canonical import dumps, milliseconds
from provisioner.evidence.findings import Findings, examine
from provisioner.evidence.history import LAUNCHES, MACHINE, Ask, History, Nonsense, Thing, read
from provisioner.evidence.measured import evaluation
from provisioner.evidence.messages import problem
from provisioner.journal import Entry
from provisioner.model import Json

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "https://gpulease.dev/attestation/gpu-run-shutdown/v1"
SCHEMA_MINOR = 0
SWEEPS_LISTED = 24

OF_THE_MACHINE = frozenset({"guest-timer", "guest-twin", "guest-lease", *scheduled.AT_THE_PROVIDER})

EXCLUDED = ["commitments", "credits", "currency-conversion", "discounts", "log-storage", "requests", "tax"]


def build(
    entries: Sequence[Entry],
    files: Mapping[str, str],
    *,
    producer: Mapping[str, str],
    results: bytes | None = None,
    aws: corroboration.Aws = MappingProxyType({}),
    unchecked: str = "",
) -> dict[str, Json]:
    """The statement of a journal and of the files beside it (name to sha256; `journal.jsonl` is worked out here).

    `results` are the bytes of `results.json`, from which the evaluation's counts come; without them the statement
    makes no claim about an evaluation. `aws` are the bytes of the files under aws/; `unchecked` is why their maker could not
    check the identity documents among them, and then claims nothing by them. Raises `Nonsense` when the journal does not tell a run.
    """
    history = read(entries)
    lines = [dumps(dict(entry)) + b"\n" for entry in entries]
    known = hashlib.sha256(lines[-1]).hexdigest(), hashlib.sha256(b"".join(lines)).hexdigest()
    return derived(history, known, files, producer=producer, results=results, aws=aws, unchecked=unchecked)


def derived(
    history: History,
    known: tuple[str, str],
    files: Mapping[str, str],
    *,
    producer: Mapping[str, str],
    results: bytes | None,
    aws: corroboration.Aws,
    unchecked: str,
) -> dict[str, Json]:
    """The same, of a history that was read already; `known` are the sha256 of the journal's last line and of all of it."""
    findings = examine(history)
    head, whole = known
    digests = {name: digest for name, digest in files.items() if name != "journal.jsonl"}
    _sealed_files(history, digests)
    predicate: dict[str, Json] = {
        "schemaMinor": SCHEMA_MINOR,
        "simulated": findings.simulated,
        "producer": dict(producer),
        "rendererVersion": render.VERSION,
        "run": _run(history),
        "instances": [_instance(history, ask, thing) for ask, thing in _machines(history)],
        "resources": [_resource(history, findings, thing) for thing in history.things.values()]
        + [_lost(a, findings) for a in history.unanswered],
        "guards": _guards(history),
        "sweeps": [_sweep(history, entry) for entry in history.lines("sweep")[-SWEEPS_LISTED:]],
        "settleSeconds": findings.settle_s,
        "clean": findings.clean,
        "verdict": findings.verdict,
        "cost": _cost(history, findings),
        "clock": _clock(history),
        "journal": _journal(history, head),
        "anchors": _anchors(history),
    }
    predicate["corroboration"] = corroboration.described(history, aws, predicate, heads(history), unchecked)
    if (unfiltered := besides.described(history)) is not None:
        predicate["unfiltered"] = unfiltered
    if results is not None:
        predicate["evaluation"] = evaluation(results, digests)
    omitted = len(history.lines("sweep")) > SWEEPS_LISTED
    open_ = findings.limits(predicate["cost"], predicate["corroboration"], omitted=omitted)
    predicate["limits"] = sorted([*open_, *(code for code, holds in besides.limits(unfiltered).items() if holds)])
    subject = [("journal.jsonl", whole), *sorted(digests.items())]
    return {
        "_type": TYPE,
        "predicateType": PREDICATE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subject],
        "predicate": predicate,
    }


def _sealed_files(history: History, digests: Mapping[str, str]) -> None:
    seals = history.lines("seal")
    for name, digest in seals[-1]["body"]["files"].items() if seals else ():
        if name != "journal.jsonl" and digests.get(name) != digest:
            raise Nonsense(problem("E301", seq=seals[-1]["seq"], field=f"subject {name}", a=digests.get(name, "absent"), b=digest))


def _run(history: History) -> dict[str, Json]:
    genesis = history.genesis
    offer = genesis.get("offer", {})
    made: dict[str, Json] = {"id": genesis["lease"], "provider": genesis["provider"]}
    if "profile" in genesis:
        made["profile"] = {name: genesis["profile"][name] for name in ("name", "sha256") if name in genesis["profile"]}
    named = [("region", "region"), ("gpu", "gpu")] + ([("zone", "availabilityZone")] if _in_that_zone(history, offer.get("zone")) else [])
    made |= {theirs: offer[ours] for ours, theirs in named if offer.get(ours)}
    if "spot" in offer:
        made["purchase"] = "spot" if offer["spot"] else "on-demand"
    made |= {name: genesis[name] for name in ("budgetMicroUsd", "maxRunSeconds", "deadline") if name in genesis}
    made |= history.moment(history.entries[0]).fields("startedAt")
    if verdicts := history.lines("verdict"):
        made |= history.moment(verdicts[-1]).fields("endedAt")
    if outcomes := history.of("outcome"):
        made["outcome"] = outcomes[-1]["outcome"]
    return made


def _in_that_zone(history: History, zone: Json) -> bool:
    """Was every machine asked for where the first offer was? After a failover the zone stands with each machine only."""
    asked = [ask.body.get("params", {}) for ask in history.asks if ask.body["class"] in LAUNCHES]
    return all(params.get("zone", zone) == zone for params in asked if "quote" in params)


def _host_keys(history: History, thing: Thing) -> dict[str, Json]:
    """The key that the machine was born with, and the one it then made itself."""
    found: dict[str, Json] = {}
    for stage in history.of("stage"):
        detail = stage.get("detail")
        if stage.get("stage") == "connect" and isinstance(detail, dict) and detail.get("id") == thing.id:
            found |= {name: str(detail[name])[:100] for name in ("hostKeySha256", "firstHostKeySha256") if name in detail}
    return found


def _machines(history: History) -> list[tuple[Ask | None, Thing | None]]:
    """One per launch that was asked for, the refused too; then any machine that is ours and was never asked for, or is a fleet's next."""
    machines = [t for t in history.things.values() if t.kind == MACHINE]
    made = {id(t.ask): t for t in reversed(machines) if t.ask is not None}
    asked: list[tuple[Ask | None, Thing | None]] = [(a, made.get(id(a))) for a in history.asks if a.body["class"] in LAUNCHES]
    return asked + [(t.ask, t) for t in machines if t.ask is None or made[id(t.ask)] is not t]


def _instance(history: History, ask: Ask | None, thing: Thing | None) -> dict[str, Json]:
    made: dict[str, Json] = {"requestIds": {}}
    if ask is not None:
        params = ask.body.get("params", {})
        made |= {"createIntentSeq": ask.seq, "clientToken": ask.body["token"], "answer": ask.answer or "none"}
        made |= history.moment(ask.entry).fields("requestedAt")
        named = [("type", "type"), ("region", "region")]
        if "quote" in params:  # a lease that may ask for several kinds of machines says of each what it was
            named.append(("zone", "availabilityZone"))
            made["purchase"] = "spot" if params.get("spot") is True else "on-demand"
        made |= {theirs: params[ours] for ours, theirs in named if isinstance(params.get(ours), str)}
        if ask.answer == "failed" and ask.answer_entry is not None:
            made["refusal"] = ask.answer_entry["body"].get("code", "")
        made["requestIds"] |= _request(ask, "run")
    if thing is None:
        return made
    made |= {"id": thing.id, "stopCause": _stop_cause(history, thing)}
    if thing.region:
        made["region"] = thing.region
    for name in ("type", "imageId", "hostKeySha256", "launchTime", "stateReason", "stateTransitionReason"):
        if (said := thing.facts(name)) is not None and (name != "launchTime" or milliseconds(said) is not None):
            made[name] = said[:2000]
    made |= _host_keys(history, thing)
    if (first := thing.first("here")) is not None:
        made |= history.moment(first).fields("runningFirstSeenAt")
    if thing.removals:
        made |= history.moment(thing.removals[0].entry).fields("terminateRequestedAt")
    if thing.accepted is not None and thing.accepted.answer_entry is not None:
        made |= history.moment(thing.accepted.answer_entry).fields("terminateAcceptedAt")
        made["requestIds"] |= _request(thing.accepted, "terminate")
    if (gone := thing.first("gone")) is not None:
        made |= history.moment(gone).fields("terminatedFirstSeenAt")
    return made


def _request(ask: Ask, name: str) -> dict[str, Json]:
    body = {} if ask.answer_entry is None else ask.answer_entry["body"]
    said = body.get("requestId") or body.get("facts", {}).get("requestId")
    return {name: said} if isinstance(said, str) and said else {}


def _stop_cause(history: History, thing: Thing) -> str:
    reason = thing.facts("stateReason") or ""
    if "InstanceInitiatedShutdown" in reason:
        return "guard-guest"
    if "SpotInstance" in reason:
        return "spot-reclaim"
    if (accepted := history.let_go(thing)) is not None:
        taken_over = [e["seq"] for e in history.lines("recovered")]
        return "recovery" if taken_over and taken_over[0] < accepted.seq else "client"
    if thing.phase in ("leaving", "gone"):
        if guard := scheduled.which(history, thing):
            return f"guard-{guard}"
        return "external" if "UserInitiatedShutdown" in reason else "unknown"
    return "unknown"


def _resource(history: History, findings: Findings, thing: Thing) -> dict[str, Json]:
    made: dict[str, Json] = {
        "class": thing.kind,
        "id": thing.id,
        "firstSeq": thing.seen[0]["seq"],
        "final": findings.finals[thing.kind, thing.id],
    }
    made["phase"] = thing.phase
    if thing.region:
        made["region"] = thing.region
    if thing.ask is not None:
        made["createIntentSeq"] = thing.ask.seq
        if thing.ask.answer == "done" and thing.ask.answer_entry is not None:
            made["createDoneSeq"] = thing.ask.answer_entry["seq"]
    if thing.accepted is not None and thing.accepted.answer_entry is not None:
        made["deleteDoneSeq"] = thing.accepted.answer_entry["seq"]
    return made


def _lost(ask: Ask, findings: Findings) -> dict[str, Json]:
    return {
        "class": ask.body["class"],
        "createIntentSeq": ask.seq,
        "firstSeq": ask.seq,
        "final": "absent" if findings.waited_out else "unknown",
    }


def _guards(history: History) -> list[Json]:
    guards: dict[str, dict[str, Json]] = {}
    machines = {ask.seq for ask in history.asks if ask.body["class"] in LAUNCHES}
    for entry in history.entries:
        if entry["seq"] in machines:
            # A guard that stood on one machine says nothing of the next: what is told is told of the last one.
            for name in [name for name in guards if name in OF_THE_MACHINE]:
                del guards[name]
        if entry["kind"] != "guard":
            continue
        body = entry["body"]
        guard = guards.setdefault(body["guard"], {"kind": body["guard"], "seq": entry["seq"], "tested": False})
        name = {"armed": "armedAt", "read-back": "readBackAt", "removed": "removedAt", "failed": "failedAt", "waived": "waivedAt"}[
            body["state"]
        ]
        guard |= history.moment(entry).fields(name)
        guard |= {name: body[name] for name in ("firesAt", "drilled") if name in body}
    for thing in history.things.values():
        if thing.kind not in scheduled.AT_THE_PROVIDER or thing.kind not in guards:
            continue
        if thing.accepted is not None and thing.accepted.answer_entry is not None:
            guards[thing.kind] |= history.moment(thing.accepted.answer_entry).fields("removedAt")
    for name in history.genesis.get("waived", []):
        guards.setdefault(name, {"kind": name, "seq": 0, "tested": False, **history.moment(history.entries[0]).fields("waivedAt")})
    return list(guards.values())


def _sweep(history: History, entry: Entry) -> dict[str, Json]:
    rows: dict[tuple[str, bool, str], dict[str, Json]] = {}
    for looked in entry["body"]["classes"]:
        reason = looked.get("reason", "")
        row = rows.setdefault(
            (looked["class"], looked["checked"], reason),
            {"class": looked["class"], "regions": [], "checked": looked["checked"], "ours": 0} | ({"reason": reason} if reason else {}),
        )
        row["regions"].append(looked["region"])
        row["ours"] += looked["found"]
    made: dict[str, Json] = {
        "seq": entry["seq"],
        **history.moment(entry).fields("at"),
        "found": entry["body"]["found"],
        "classes": list(rows.values()),
    }
    if error := entry["body"].get("error"):
        made["error"] = error
    return made


def _cost(history: History, findings: Findings) -> dict[str, Json]:
    genesis, last = history.genesis, history.entries[-1]
    try:
        lines = [line_of(line) for line in genesis.get("quote", {}).get("lines", [])]
        seen = intervals(list(history.entries), milliseconds(last["at"]["wall"]) or 0)
        unpriced = [i for i in seen if not (i.lines or lines) or cost.unpriced(i, genesis)]
        spend = meter([i for i in seen if i not in unpriced], lines)
        # The first offer's prices, then those of every other offer that was asked for, each once.
        prices = list(dict.fromkeys([*lines, *(line for i in seen for line in i.lines or ())]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as e:
        raise Nonsense(problem("E110", jsonpath="$journal", why=f"no cost can be worked out: {e}")) from None
    # A machine that was met and not made, and whose launch time nobody said, has no earliest start.
    met = [
        t
        for t in history.things.values()
        if t.kind == MACHINE and (t.ask is None or t.ask.body["class"] != MACHINE or t.ask.answer != "done")
    ]
    timeless = any(milliseconds(t.facts("launchTime")) is None for t in met)
    bounded = not unpriced and not timeless and not findings.foreign and not any(i.open for i in seen)
    made: dict[str, Json] = {
        "currency": "USD",
        "basis": "simulated-list-price" if findings.simulated else "public-list-price",
        "components": [
            {
                "component": line.name,
                "resource": line.resource,
                "loMicroUsd": line.lo,
                "bestMicroUsd": line.best,
                "secondsLo": line.seconds_lo,
            }
            | ({"hiMicroUsd": line.hi, "secondsHi": line.seconds_hi} if bounded else {})
            for line in spend.lines
        ],
        "prices": [
            {
                "component": line.name,
                "microUsdPerHour": line.micro_usd_per_hour,
                "fixedMicroUsd": line.fixed_micro_usd,
                "source": line.source,
                "asOf": line.as_of,
            }
            for line in prices
        ],
        "totalLoMicroUsd": spend.lo,
        "excluded": EXCLUDED,
    }
    if bounded:
        made |= {"totalBestMicroUsd": spend.best, "totalHiMicroUsd": spend.hi}
    if unpriced:
        made["unpriced"] = sorted({i.resource for i in unpriced})
    return made


def _clock(history: History) -> dict[str, Json]:
    made: dict[str, Json] = {"steps": history.steps, "source": "local" if history.offset is None else "provider-dates"}
    if history.offset is not None:
        low, high = history.offset
        made |= {"awsOffsetMs": (low + high) // 2, "awsOffsetUncertaintyMs": -(-(high - low) // 2)}
    return made


def _journal(history: History, head: str) -> dict[str, Json]:
    entries = history.entries
    torn = [{"seq": e["seq"], "sha256": e["body"]["tornSha256"]} for e in history.lines("recovered") if "tornSha256" in e["body"]]
    return {
        "records": len(entries),
        "head": head,
        "firstAt": entries[0]["at"]["wall"],
        "lastAt": entries[-1]["at"]["wall"],
        "tornTails": torn,
    }


def heads(history: History) -> list[str]:
    """The beginning of every head that this journal ever had, as a token or a user agent carries it."""
    lines = [dumps(dict(history.entries[-1])) + b"\n"]
    return [*(entry["prev"][:32] for entry in history.entries[1:]), hashlib.sha256(lines[0]).hexdigest()[:32]]


def _anchors(history: History) -> list[Json]:
    """Each head of this journal that the provider was shown, in the order of the journal."""
    found: list[Json] = [anchor for ask in history.asks if (anchor := _anchor(history, ask)) is not None]
    for entry in history.lines("anchor"):
        body = entry["body"]
        if "head" not in body:  # a copy without names has another journal than the one that AWS was shown
            continue
        made: dict[str, Json] = {"kind": "user-agent", "headPrefix": body["head"], "journalSeq": entry["seq"]}
        made |= history.moment(entry).fields("at") if history.date(entry) is not None else {}
        found.append(made | ({"requestId": body["requestId"]} if "requestId" in body else {}))
    return found


def _anchor(history: History, ask: Ask) -> dict[str, Json] | None:
    """The commitment to everything written before it that a create's token carries to the provider."""
    head = ask.body["token"].rpartition("-")[2]
    if len(head) != 32 or not set(head) <= set("0123456789abcdef"):
        return None
    made: dict[str, Json] = {"kind": "client-token", "headPrefix": head, "journalSeq": ask.seq}
    if ask.answer_entry is not None and history.date(ask.answer_entry) is not None:
        made |= history.moment(ask.answer_entry).fields("at")
    if "run" in (said := _request(ask, "run")):
        made["requestId"] = said["run"]
    return made
