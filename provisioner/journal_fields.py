"""Which fields a journal may hold, kind by kind: an allow-list, because a list of what must stay out is never complete.

User data, headers, an environment, what a program printed: none of it can enter under a name that is not here, whoever hands
it over and however deep. What is not in the table is left out when the line is written, and the line says so by name
(`leftOut`), so that it is noticed; the test suite fails on every such line. Nothing here raises: an intent that is not
written is not asked for, and a removal that is not noted may be forgotten, so a field too many must cost neither.

It is for writing alone. A journal is read as it is, whatever wrote it. To add a field: name it here and in docs/proof.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from provisioner.model import Json

Shape = Mapping[str, "Shape | Digests | None"]
"""Names, each with what its value may be: None is one text, number or truth, or a list of them; a shape is an object of
these names, or a list of such objects."""


class Digests:
    """Names of files, each with the SHA-256 of its bytes."""


DIGESTS: Final = Digests()
LEFT_OUT = "leftOut"
MOST_NAMED = 8
OURS = re.compile(r"[A-Za-z][A-Za-z_-]{0,23}[0-9]{0,3}")
"""A name as we give them. Any other may be what should not be told: a token that somebody keys a table with."""


def _names(text: str) -> dict[str, None]:
    return dict.fromkeys(text.split())


OF_AWS = _names(
    "activity address adopted createTime deadline diskGib encrypted endsMachines firesAt fleet imageCreated imageId imageName imageOwner"
    " instance launchTime name privateAddress providerDate requestId service sizeGib stateReason stateTransitionReason template type"
    " validUntil volumeType vpc zone"
)
OF_A_HOST = _names("address note port user")
OF_THE_SIMULATED = _names("born instance")  # in memory, for tests
FACTS: Shape = OF_AWS | OF_A_HOST | OF_THE_SIMULATED
"""What a provider says of a thing. `address` and `imageOwner` are written as commitments: `names.HIDDEN`."""

SETTINGS: Shape = (
    _names("endpoint profile region regions")  # aws
    | _names("host hostKey identity port price_micro_usd_per_hour")  # a host of the user's own; `identity` is a file's name
    | _names("path settle_ms")  # simulated
)

PRICE: Shape = _names("asOf microUsdPerHour source")
RATES: Shape = {"lines": _names("asOf fixedMicroUsd microUsdPerHour microUsdPerHourLow microUsdPerHourUsual name source")}
THING: Shape = _names("billed class id phase region state token") | {"facts": FACTS}

_ROOM = _names("free_gib mount size_gib")
MACHINE: Shape = {
    **_names("mig nofile python sudo systemd"),
    "disk": {"cache": _ROOM, "home": _ROOM},
    "gpu_processes": _names("name pid used_mib"),
    "gpus": _names("compute_cap driver ecc memory_total_mib name uuid"),
    "memory": _names("available_mib total_mib"),
    "os_release": _names("id name version"),
}
"""What was read on the machine: `remote/facts.py`."""

FIGURES: Shape = _names(
    "concurrency_hundredths free_mib graph_mib graph_ms kv_cache_mib kv_cache_tokens load_ms max_requests model_len_tokens weights_mib"
)
"""What the server's log says of memory and times: `runtimes/`."""

STAGE: Shape = {
    **_names("id refused type"),  # launch
    **_names("firstHostKeySha256 hostKeySha256 identity identityChecked"),  # connect
    "facts": MACHINE,  # verify
    **_names("exposed firstAnswerMs keyRequired model port readyMs revision runtime simulated version"),  # serve
    "figures": FIGURES,
    **_names("localPort evalSetSha256 samples seconds"),  # tunnel, eval, keep
    "left out": None,
}

KINDS: Mapping[str, Shape] = {
    "genesis": {
        **_names("brokenSha256 budgetMicroUsd deadline elsewhere lease maxRunSeconds provider rebuilt simulated waived"),
        "offer": _names("gpu gpus provider region spot type vcpus vramMib zone") | {"price": PRICE, "market": PRICE},
        "producer": _names("name pythonVersion version"),
        "profile": _names("name sha256"),
        "quote": {**RATES, **_names("atMostMicroUsd basis deadlineSeconds expectedMicroUsd expectedSeconds tailSeconds")},
        "settings": SETTINGS,
    },
    "intent": {
        **_names("class id op token"),
        "params": _names("deadline diskGib fleet group image reach region spot subnet type zone") | {"quote": RATES},
    },
    "done": {**THING, **_names("intentSeq op previousState providerDate requestId")},
    "failed": _names("class code id intentSeq op requestId why"),
    "unknown": _names("class intentSeq op requestId why"),
    "observe": {**THING, **_names("requestIds")},
    "sweep": _names("checked error found providerDate requestIds") | {"classes": _names("checked class found reason region")},
    "baseline": _names("sha256") | {"classes": _names("checked class found reason regions")},
    "unfiltered": {"classes": _names("checked class newUnexplained ours reason regions")},
    "guard": _names("detail firesAt guard state") | {"drilled": _names("date region secondsLate")},
    "stage": _names("stage state") | {"detail": STAGE},
    "failure": _names("error what why"),
    "recovered": _names("by tornSha256"),
    "verdict": _names("openIntents settleSeconds verdict") | {"left": _names("class id phase")},
    "outcome": _names("exit outcome"),
    "seal": {
        "files": DIGESTS,
        "spend": {
            **_names("basis bestMicroUsd hiMicroUsd loMicroUsd notIncluded open"),
            "lines": _names("asOf bestMicroUsd hiMicroUsd loMicroUsd name resource secondsHi secondsLo source"),
        },
    },
    "anchor": _names("call head providerDate requestId"),
}
"""Kind of line -> what its body may hold. A line of a kind that is not here is written without a body."""


def kept(kind: str, body: Mapping[str, Json]) -> Mapping[str, Json]:
    """That body as it may be written: itself where it fits, as nearly all do; else a copy that names what it lacks."""
    shape = KINDS.get(kind, {})
    if _fits(body, shape):
        return body
    out: dict[str, None] = {}
    made = _only(body, shape, "", out)
    names = sorted(out)[:MOST_NAMED]
    noticed(kind, names)
    return {**made, LEFT_OUT: names}


def noticed(kind: str, names: list[str]) -> None:
    """Called whenever something is left out. The test suite puts its own here, and fails."""


_HOLDERS = (dict, list, tuple)


def _fits(value: Json, shape: Shape | Digests | None) -> bool:
    if isinstance(value, dict):
        if shape is None or isinstance(shape, Digests):
            return shape is not None and all(_digest(name, one) for name, one in value.items())
        if not value.keys() <= shape.keys():
            return False
        for name, one in value.items():
            if isinstance(one, _HOLDERS):
                if not _fits(one, shape[name]):
                    return False
            elif one is not None and shape[name] is not None:
                return False
        return True
    if isinstance(value, _HOLDERS):
        return not any(isinstance(one, _HOLDERS) for one in value) if shape is None else all(_fits(one, shape) for one in value)
    return value is None or shape is None


def _only(value: Json, shape: Shape | Digests | None, where: str, out: dict[str, None]) -> Json:
    """What fits of it; where something did not goes into `out`."""
    if _fits(value, shape):
        return value
    if isinstance(value, list | tuple):
        fit = [one for one in value if not isinstance(one, list | tuple) and isinstance(one, dict) != (shape is None)]
        if len(fit) < len(value):
            out[where] = None
        return [_only(one, shape, where, out) for one in fit]
    if shape is None or not isinstance(value, dict):
        out[where] = None
        return "" if shape is None else {}  # whoever reads the line back asks for the field, and must find one
    made: dict[str, Json] = {}
    for name, one in value.items():
        path = f"{where}.{_called(name)}" if where else _called(name)
        if not isinstance(shape, Digests) and name in shape:
            made[name] = _only(one, shape[name], path, out)
        elif isinstance(shape, Digests) and _digest(name, one):
            made[name] = one
        else:
            out[path] = None
    return made


def _digest(name: object, value: object) -> bool:
    texts = isinstance(name, str) and isinstance(value, str)
    return texts and re.fullmatch(r"[\w./-]{1,100}", str(name)) is not None and re.fullmatch("[0-9a-f]{64}", str(value)) is not None


def _called(name: object) -> str:
    return name if isinstance(name, str) and OURS.fullmatch(name) else "?"
