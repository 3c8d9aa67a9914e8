"""The shape of the signed statement: an in-toto Statement v1 with the gpu-run-shutdown/v1 predicate.

Published as `docs/schema/gpu-run-shutdown-v1.json`; a test holds the two equal. The schema is closed: within one
minor version there are no fields but these. A later minor may add some, and then `opened` is what an older verifier
checks with, because by in-toto's monotonic rule an unknown field can only add to what is known, never change it.
"""

from __future__ import annotations

import json
from typing import Any

from provisioner.evidence.schema import COUNT, DRILLED, FLAG, LEASE, OUTCOME, PHASE, SHA256, TEXT, TIME, VERDICT, Schema, array, shape
from provisioner.evidence.statement import PREDICATE, TYPE
from provisioner.evidence.tiers import TIERS

INTEGER: Schema = {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}


def at(*names: str) -> dict[str, Schema]:
    """Times, each with its uncertainty where it is known."""
    return {name: TIME for name in names} | {f"{name}UncertaintyMs": COUNT for name in names}


RUN = shape(
    {"id": LEASE, "provider": TEXT},
    {
        "profile": shape({"name": TEXT}, {"sha256": SHA256}),
        "region": TEXT,
        "availabilityZone": TEXT,
        "gpu": TEXT,
        "purchase": {"enum": ["on-demand", "spot"]},
        "budgetMicroUsd": COUNT,
        "maxRunSeconds": COUNT,
        "deadline": TIME,
        "outcome": OUTCOME,
        **at("startedAt", "endedAt"),
    },
)

INSTANCE = shape(
    {"requestIds": shape({}, {"run": TEXT, "terminate": TEXT})},
    {
        **{
            name: TEXT
            for name in (
                "id",
                "type",
                "region",
                "availabilityZone",
                "imageId",
                "clientToken",
                "hostKeySha256",
                "firstHostKeySha256",
                "stateReason",
                "stateTransitionReason",
                "refusal",
            )
        },
        "answer": {"enum": ["done", "failed", "unknown", "none"]},
        "purchase": {"enum": ["on-demand", "spot"]},
        "createIntentSeq": COUNT,
        "launchTime": TIME,
        "stopCause": {
            "enum": ["client", "recovery", "guard-schedule", "guard-fleet", "guard-guest", "spot-reclaim", "external", "unknown"]
        },
        **at("requestedAt", "runningFirstSeenAt", "terminateRequestedAt", "terminateAcceptedAt", "terminatedFirstSeenAt"),
    },
)

RESOURCE = shape(
    {"class": TEXT, "firstSeq": COUNT, "final": {"enum": ["deleted", "absent", "present", "unknown"]}},
    {"id": TEXT, "region": TEXT, "phase": PHASE, "createIntentSeq": COUNT, "createDoneSeq": COUNT, "deleteDoneSeq": COUNT},
)

GUARD = shape(
    {"kind": TEXT, "seq": COUNT, "tested": FLAG},
    {"firesAt": TIME, "drilled": DRILLED, **at("armedAt", "readBackAt", "removedAt", "failedAt", "waivedAt")},
)

LOOKED = shape({"class": TEXT, "regions": array(TEXT, 500), "checked": FLAG, "ours": COUNT}, {"reason": TEXT, "newUnexplained": COUNT})
SWEEP = shape({"seq": COUNT, "at": TIME, "found": COUNT, "classes": array(LOOKED, 500)}, {"atUncertaintyMs": COUNT, "error": TEXT})

# Before the launch and after the verdict, without the filter by tag; without "seq" nobody looked the second time.
UNFILTERED = shape(
    {"baselineSeq": COUNT, "baselineAt": TIME, "classes": array(LOOKED, 500)},
    {"baselineAtUncertaintyMs": COUNT, "seq": COUNT, **at("at")},
)

COST = shape(
    {
        "currency": {"const": "USD"},
        "basis": {"enum": ["public-list-price", "simulated-list-price"]},
        "components": array(
            shape(
                {"component": TEXT, "resource": TEXT, "loMicroUsd": COUNT, "bestMicroUsd": COUNT, "secondsLo": COUNT},
                {"hiMicroUsd": COUNT, "secondsHi": COUNT},
            )
        ),
        "prices": array(shape({"component": TEXT, "microUsdPerHour": COUNT, "fixedMicroUsd": COUNT, "source": TEXT, "asOf": TEXT}), 100),
        "totalLoMicroUsd": COUNT,
        "excluded": array(TEXT, 100),
    },
    {"totalBestMicroUsd": COUNT, "totalHiMicroUsd": COUNT, "unpriced": array(TEXT)},
)

PREDICATE_SHAPE = shape(
    {
        "schemaMinor": COUNT,
        "simulated": FLAG,
        "rendererVersion": COUNT,
        "producer": shape({"name": TEXT, "version": TEXT}, {"sourceCommit": TEXT, "pythonVersion": TEXT, "lockSha256": SHA256}),
        "run": RUN,
        "instances": array(INSTANCE),
        "resources": array(RESOURCE),
        "guards": array(GUARD),
        "sweeps": array(SWEEP, 100),
        "settleSeconds": COUNT,
        "clean": FLAG,
        "verdict": VERDICT,
        "cost": COST,
        "clock": shape(
            {"steps": COUNT, "source": {"enum": ["local", "provider-dates"]}}, {"awsOffsetMs": INTEGER, "awsOffsetUncertaintyMs": COUNT}
        ),
        "journal": shape(
            {"records": COUNT, "head": SHA256, "firstAt": TIME, "lastAt": TIME, "tornTails": array(shape({"seq": COUNT, "sha256": SHA256}))}
        ),
        "anchors": array(
            shape(
                {"kind": {"enum": ["client-token", "user-agent"]}, "headPrefix": TEXT, "journalSeq": COUNT},
                {"requestId": TEXT, "at": TIME, "atUncertaintyMs": COUNT},
            )
        ),
        "corroboration": shape(
            {"tier": {"enum": list(TIERS)}, "iid": TEXT, "cloudtrailEvents": COUNT, "records": TEXT, "digestChain": TEXT, "billed": TEXT}
        ),
        "limits": array(TEXT, 100),
    },
    {
        "evaluation": shape({"promptsTotal": COUNT, "ok": COUNT, "failed": COUNT, "resultsSha256": SHA256}),
        "supersedes": shape({"sha256": SHA256}),
        "unfiltered": UNFILTERED,
    },
)

STATEMENT: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": PREDICATE,
    "title": "in-toto Statement v1 with predicate gpu-run-shutdown/v1",
    "description": "Whole numbers only; units in names; times RFC 3339 UTC. What is absent is a weaker claim, never a stronger one.",
    **shape(
        {
            "_type": {"const": TYPE},
            "predicateType": {"const": PREDICATE},
            "subject": {
                "type": "array",
                "minItems": 1,
                "maxItems": 200,
                "items": shape({"name": {"type": "string", "maxLength": 200}, "digest": shape({"sha256": SHA256})}),
            },
            "predicate": PREDICATE_SHAPE,
        }
    ),
}


def published() -> dict[str, Any]:
    """The schema as it is handed out, members in the order of the alphabet."""
    made: dict[str, Any] = json.loads(json.dumps(STATEMENT, sort_keys=True))
    return made


def opened(schema: Schema) -> Schema:
    """The same shape, letting fields through that it does not name: for a statement of a later minor version."""
    made = {name: value for name, value in schema.items() if name != "additionalProperties" or value is not False}
    for name in ("properties", "items"):
        if name in made:
            inner = made[name]
            made[name] = opened(inner) if name == "items" else {key: opened(value) for key, value in inner.items()}
    return made
