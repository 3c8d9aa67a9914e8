"""What AWS billed for a run's machines, as a second signed statement on the first: days later, by the same key.

The first statement bounds the cost at list price on the day; it is not touched. This one names it by digest, holds what Cost
Explorer answered, word for word, and says whether the machines' figure lies inside the first one's bounds. It is a copy, as
CloudTrail's lookups are: whoever may read the account's bills can ask again. Only the machines themselves are compared: Cost
Explorer names no run for a disk or an address.

Derived by one function for maker and verifier, as the first one is. This file must not open anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from provisioner.evidence.canonical import Malformed, loads
from provisioner.evidence.history import Nonsense
from provisioner.evidence.messages import problem
from provisioner.evidence.predicate import INTEGER
from provisioner.evidence.schema import COUNT, FLAG, LEASE, SHA256, TEXT, TIME, array, shape
from provisioner.evidence.statement import TYPE
from provisioner.model import Json

PREDICATE = "https://gpulease.dev/attestation/gpu-run-billed/v1"
FILE, ENVELOPE = "aws/billing.json", "bill.dsse.json"
LIMIT = 1 << 20

BILL = shape(
    {
        "_type": {"const": TYPE},
        "predicateType": {"const": PREDICATE},
        "subject": array(shape({"name": TEXT, "digest": shape({"sha256": SHA256})}), 2),
        "predicate": shape(
            {
                "schemaMinor": COUNT,
                "simulated": FLAG,
                "run": LEASE,
                "source": TEXT,
                "resources": array(TEXT, 1000),
                "currency": {"const": "USD"},
                "billedMicroUsd": INTEGER,
                "estimated": FLAG,
                "retrievedAt": TIME,
                "listLoMicroUsd": COUNT,
                "comparison": {"enum": ["inside", "below", "above", "no-upper-bound"]},
            },
            {"listHiMicroUsd": COUNT},
        ),
    }
)

_ANSWER = shape(
    {
        "retrievedAt": TIME,
        "resources": array(TEXT, 1000),
        "results": array(
            shape({"Estimated": FLAG, "Groups": array({"type": "object"}, 10_000)}, {"TimePeriod": {"type": "object"}}, closed=False), 1000
        ),
    },
    {"requestIds": array(TEXT, 1000), "period": {"type": "object"}},
)


def build(first: Mapping[str, Any], envelope: bytes, answer: bytes) -> dict[str, Json]:
    """The statement of a bill. `first` is the predicate in `envelope`, `answer` the bytes of aws/billing.json. `Nonsense` otherwise."""
    said = _read(answer)
    machines = sorted({one["id"] for one in first["instances"] if "id" in one})
    if sorted(said["resources"]) != machines:
        raise Nonsense(
            problem("E110", jsonpath="$bill.resources", why=f"it is about {said['resources']}, the run's machines are {machines}")
        )
    billed = round(sum((_amount(group, machines) for result in said["results"] for group in result["Groups"]), Decimal(0)) * 1_000_000)
    rows = [c for c in first["cost"]["components"] if c["component"] == "instance"]
    low, high = sum(c["loMicroUsd"] for c in rows), [c.get("hiMicroUsd") for c in rows]
    bounded = None if None in high else sum(h for h in high if h is not None)
    comparison = "below" if billed < low else "no-upper-bound" if bounded is None else "inside" if billed <= bounded else "above"
    predicate: dict[str, Json] = {
        "schemaMinor": 0,
        "simulated": first["simulated"],
        "run": first["run"]["id"],
        "source": "cost-explorer",
        "resources": machines,
        "currency": "USD",
        "billedMicroUsd": billed,
        "estimated": any(result["Estimated"] for result in said["results"]),
        "retrievedAt": said["retrievedAt"],
        "listLoMicroUsd": low,
        "comparison": comparison,
    }
    subject = [("statement.dsse.json", envelope), (FILE, answer)]
    return {
        "_type": TYPE,
        "predicateType": PREDICATE,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}} for name, data in subject],
        "predicate": predicate | ({} if bounded is None else {"listHiMicroUsd": bounded}),
    }


def sentence(bill: Mapping[str, Any]) -> str:
    """In words, for the verifier's last lines."""
    from provisioner.evidence.words import usd

    how = {
        "inside": "inside the bounds at list price",
        "below": "below the bounds at list price: discounts or credits, or a bill that is not whole yet",
        "above": "ABOVE the bounds at list price",
        "no-upper-bound": "which has no upper bound at list price",
    }[bill["comparison"]]
    billed = ("-" if bill["billedMicroUsd"] < 0 else "") + usd(abs(bill["billedMicroUsd"]))
    high = f" to {usd(bill['listHiMicroUsd'])}" if "listHiMicroUsd" in bill else ""
    still = " AWS still calls it estimated." if bill["estimated"] else ""
    mark = "SIMULATED: " if bill["simulated"] else ""
    return f"{mark}Billed for its machines: {billed} USD, {how} ({usd(bill['listLoMicroUsd'], up=False)}{high}).{still}"


def _read(answer: bytes) -> dict[str, Any]:
    from provisioner.evidence.schema import first_error

    try:
        said = loads(answer)
    except Malformed as e:
        raise Nonsense(problem("E110", jsonpath="$bill", why=str(e))) from None
    wrong = first_error(said, _ANSWER, "$bill")
    if wrong is not None:
        raise Nonsense(problem("E110", jsonpath=wrong[0], why=wrong[1]))
    assert isinstance(said, dict)
    return said


def _amount(group: Mapping[str, Any], machines: list[str]) -> Decimal:
    """One machine's cost in one period, in dollars."""
    try:
        (key,), cost = group["Keys"], group["Metrics"]["UnblendedCost"]
        amount = Decimal(cost["Amount"])
        if key not in machines or cost["Unit"] != "USD" or not amount.is_finite() or abs(amount) > 1_000_000:
            raise ValueError("not dollars of one of the machines")
    except (KeyError, TypeError, ValueError, InvalidOperation) as e:
        raise Nonsense(problem("E110", jsonpath="$bill.results", why=f"a group cannot be read: {e}")) from None
    return amount
