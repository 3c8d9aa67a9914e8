"""The sentences of a proof, for the verifier's first lines and the report's first paragraph alike.

Each is derived from the statement alone, and each says who saw it. "Seen terminated", "asked to stop" and "not shown"
are three different things and have three different sentences. Whatever came from a provider or a machine goes through
`clean`: nothing in a statement may move a cursor or start a second line.
"""

from __future__ import annotations

from typing import Any

import cost
from provisioner.clean import clean
from provisioner.evidence import limits, tiers
from provisioner.model import Json

Predicate = dict[str, Any]


def text(value: object, limit: int = 120) -> str:
    """One harmless line."""
    return " ".join(clean(str(value), limit=limit).split())


usd = cost.amount  # without a sign: its column or its sentence says USD


def span(seconds: int) -> str:
    """`39 min 47 s`."""
    hours, rest = divmod(seconds, 3600)
    parts = [(hours, "h"), (rest // 60, "min"), (rest % 60, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def verdict(predicate: Predicate) -> list[str]:
    """What the statement says, strongest first, one sentence an item."""
    return [*_ends(predicate), *_looked(predicate), *_besides(predicate), _cost(predicate)]


def first(predicate: Predicate) -> list[str]:
    """The first lines of every rendering: the tier that the statement can reach, then what it says."""
    return [f"{simulated(predicate)}{tiers.NAMES[tiers.claimed(predicate)]}.", *verdict(predicate)]


def simulated(predicate: Predicate) -> str:
    return "SIMULATED, " if predicate["simulated"] else ""


def not_shown(predicate: Predicate, *, but: str = "") -> str:
    """What stays open, in a few words each; `but` is a code that something beside the statement has answered."""
    return "; ".join(limits.words(text(code)) for code in predicate["limits"] if code != but) + "."


def sentences(predicate: Predicate) -> list[str]:
    return [limits.sentence(text(code)) for code in predicate["limits"]]


def _ends(predicate: Predicate) -> list[str]:
    said: list[str] = []
    ran = {c["resource"]: c for c in predicate["cost"]["components"] if c["component"] == "instance"}
    for instance in predicate["instances"]:
        if "id" not in instance:
            if instance.get("answer") == "done":
                said.append(f"A fleet ({text(instance.get('type', 'machine'))}) was asked for, and no machine of it was ever seen.")
            elif instance.get("answer") != "failed":
                said.append(f"A launch ({text(instance.get('type', 'machine'))}) was asked for and its answer was lost.")
            continue
        name = text(instance["id"])
        time = ran.get(instance["id"], {}).get("secondsHi")
        most = "" if time is None else f" ran at most {span(time)} and"
        if "terminatedFirstSeenAt" in instance:
            said.append(f"{name}{most} was seen terminated at {instance['terminatedFirstSeenAt']} (client's observation).")
        elif "terminateAcceptedAt" in instance:
            said.append(
                f"{name}{most} was asked to stop, and the answer was yes at {instance['terminateAcceptedAt']}; it was not seen terminated."
            )
        else:
            there = any(r.get("id") == instance["id"] and r.get("phase") == "here" for r in predicate["resources"])
            said.append(f"{name} was last seen STILL THERE." if there else f"{name} was NOT seen to end.")
        if (guard := str(instance.get("stopCause", "")).removeprefix("guard-")) in ("schedule", "fleet"):
            fires = next((g["firesAt"] for g in predicate["guards"] if g["kind"] == guard and "firesAt" in g), "its time")
            said.append(
                f"Nobody of this lease had asked {name} to stop. AWS gives an API call as the reason, at or after {fires}, when its "
                f"{'schedule was to fire' if guard == 'schedule' else 'fleet was to end'}: that fits, and only the provider's own log "
                "says who called."
            )
    if predicate["run"]["provider"] == "static":
        said.append("The machine is somebody else's: it was not stopped, only what this run had started there.")
    elif "never-launched" in predicate["limits"]:
        return ["Nothing was ever asked for: this run made no machine, and looked for none."]
    left = [r for r in predicate["resources"] if r["final"] not in ("deleted", "absent")]
    if "journal-elsewhere" in predicate["limits"] and predicate["verdict"] == "released" and not left:
        said.insert(0, "All that was shown under its tag was seen gone; what else it had asked for is not known here.")
    elif not predicate["clean"]:
        said.insert(0, f"NOT CLEAN: the run's own verdict is {predicate['verdict']}; see what is not shown.")
    if left:
        said.append(
            "Not shown to be gone: " + ", ".join(f"{text(r['class'])} {text(r.get('id', '(unknown id)'))}" for r in left[:10]) + "."
        )
    return said


def _looked(predicate: Predicate) -> list[str]:
    looks = predicate["sweeps"]
    loud = [n for n, s in enumerate(looks) if s["found"] or any(c["ours"] for c in s["classes"]) or "error" in s or not s["classes"]]
    empty = looks[loud[-1] + 1 :] if loud else looks
    if not empty:
        return ["The last look found something, or could not look."] if predicate["instances"] else []
    last = empty[-1]
    checked = sum(c["checked"] for c in last["classes"])
    regions = sorted({text(region) for c in last["classes"] for region in c["regions"] if region})
    times = " and ".join(dict.fromkeys((empty[0]["at"], last["at"])))
    where = f" in {', '.join(regions[:8])}" if regions else ""
    return [f"{checked} of {len(last['classes'])} kinds of resource were listed and empty at {times}{where} (client's observation)."]


def _besides(predicate: Predicate) -> list[str]:
    """What is new and carries no tag of this run; nothing where no list was taken before the launch."""
    if "unfiltered" not in predicate:
        return []
    listed = predicate["unfiltered"]
    if "seq" not in listed:
        return ["Everything was listed before the launch; for what is new and not of this run nobody looked afterwards."]
    known = [row for row in listed["classes"] if row["checked"] and "newUnexplained" in row]
    if not known:
        return ["What is new and not of this run was not looked at: nothing could be listed to its end both before and after."]
    new = [f"{row['newUnexplained']} {text(row['class'])}" for row in known if row["newUnexplained"]]
    what = f"{', '.join(new[:20])}; may be somebody else's" if new else "nothing"
    return [
        f"New since {listed['baselineAt']} and not known to be of this run, at {listed['at']}: {what} "
        f"({len(known)} of {len(listed['classes'])} kinds were listed both times)."
    ]


def _cost(predicate: Predicate) -> str:
    costs = predicate["cost"]
    what = "Cost at list price, had it been real," if predicate["simulated"] else "Cost at list price"
    if "totalHiMicroUsd" not in costs:
        return f"{what} at least {usd(costs['totalLoMicroUsd'], up=False)} USD; no upper bound is shown."
    return f"{what} {usd(costs['totalLoMicroUsd'], up=False)} to {usd(costs['totalHiMicroUsd'])} USD."


def evaluated(value: Json) -> str:
    return f"{value['ok']} of {value['promptsTotal']} answers correct." if value else ""
