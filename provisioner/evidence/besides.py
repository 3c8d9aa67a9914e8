"""What was new when it was over and not of this run: the two lists without a filter, before the launch and after the verdict.

The journal has counts, kind by kind; whose a new thing is nobody can say by them. A kind counts as looked at only where both
lists were whole. This file must not judge: it changes nothing that is said of the run's own.
"""

from __future__ import annotations

from typing import Any

from provisioner.evidence.history import History
from provisioner.evidence.messages import Problem, problem
from provisioner.model import Json

NOBODY = "nobody looked again"
ROW = ("class", "regions", "checked", "ours", "newUnexplained", "reason")


def described(history: History) -> dict[str, Json] | None:
    """The predicate's `unfiltered`; None where no list was taken before the launch, as in every older journal."""
    before, after = history.lines("baseline")[:1], history.lines("unfiltered")[-1:]
    if not before:
        return None
    made: dict[str, Json] = {"baselineSeq": before[0]["seq"], **history.moment(before[0]).fields("baselineAt")}
    if after and after[0]["seq"] > before[0]["seq"]:
        made |= {"seq": after[0]["seq"], **history.moment(after[0]).fields("at")}
        rows = after[0]["body"]["classes"]
    else:
        nobody = {"checked": False, "ours": 0, "reason": NOBODY}
        rows = [{"class": row["class"], "regions": row["regions"], **nobody} for row in before[0]["body"]["classes"]]
    return made | {"classes": [{name: row[name] for name in ROW if name in row} for row in rows]}


def limits(unfiltered: dict[str, Any] | None) -> dict[str, bool]:
    """Which codes it leaves open."""
    rows = unfiltered["classes"] if unfiltered else []
    known = ["newUnexplained" in row for row in rows if row["checked"]]
    whole = bool(known) and all(known) and len(known) == len(rows)
    return {
        "no-baseline": not any(known),
        "baseline-incomplete": any(known) and not whole,
        "new-unexplained": any(row.get("newUnexplained", 0) for row in rows),
    }


def warnings(predicate: dict[str, Any]) -> list[Problem]:
    """A word for each kind of which something new is there, and for what is this run's own and was called gone."""
    found: list[Problem] = []
    for row in predicate.get("unfiltered", {}).get("classes", []):
        where = ", ".join(row["regions"])
        if row.get("newUnexplained", 0):
            found.append(problem("W301", n=row["newUnexplained"], class_=row["class"], region=where))
        if row["ours"] and predicate["verdict"] == "released":
            found.append(problem("W302", n=row["ours"], class_=row["class"], region=where))
    return found
