"""What one simulated machine is: the document its parent sends on stdin, checked and typed.

Two ideas: the parent says everything in one JSON document, so that a machine can be started by hand from a file;
and faults are plain data that may change while the machine lives (later lines on stdin), so whoever acts on a
fault asks for it at the moment it matters. A fault that nobody knows is refused: a rehearsal that silently
rehearses nothing would be worse than none.

Must not know about SSH, processes or clouds.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHOWN = {"true": True, "enabled": True, "on": True, "false": False, "disabled": False, "off": False}

FAULTS: dict[str, type] = {
    "vram_mib": int,
    "driver": str,
    "no_gpu": bool,
    "other_gpu_process": bool,
    "runtime_exit": str,
    "runtime_die_after_requests": int,
    "answers": str,
    "bind_all": bool,
    "drop_ssh_after_s": float,
    "drop_ssh_after_requests": int,
    "drop_ssh_for_s": float,
    "wrong_host_key": bool,
    "no_timer": bool,
    "boot_delay_s": float,
    "never_boots": bool,
    "no_metadata": bool,
    "spot_notice_after_requests": int,
    "disk_free_gib": int,
    "start_delay_s": float,
    "first_token_ms": float,
    "token_ms": float,
}
"""Every fault a machine can be given, and its type. The last three only set the simulated server's speed."""

ANSWERS = ("garbage", "html", "empty", "endless", "slow")


class BadSpec(ValueError):
    """The document on stdin cannot be a machine."""


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_mib: int
    driver: str
    uuid: str
    compute_cap: str
    ecc: bool | None  # None: the board has no such setting


class Faults:
    """The faults in force. Thread-safe; every change is written to `file`, where the simulated server reads it."""

    def __init__(self, given: Mapping[str, Any], file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, Any] = {}
        self._file = file
        self.update(given)

    def update(self, given: Mapping[str, Any]) -> None:
        fresh: dict[str, Any] = {}
        for name, value in given.items():
            wanted = FAULTS.get(name)
            if wanted is None:
                raise BadSpec(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
            if value is not None:
                if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
                    value = float(value)
                if type(value) is not wanted:
                    raise BadSpec(f"fault {name!r} is {value!r}; it must be {wanted.__name__}")
                if name == "answers" and value not in ANSWERS:
                    raise BadSpec(f"fault 'answers' is {value!r}; it must be one of {', '.join(ANSWERS)}")
            fresh[name] = value
        with self._lock:
            self._now.update(fresh)
            self._now = {name: value for name, value in self._now.items() if value is not None}  # null takes a fault away
        self.write()

    def write(self, file: Path | None = None) -> None:
        self._file = file or self._file
        if self._file is not None:
            part = self._file.with_name(self._file.name + ".part")
            part.write_text(json.dumps(self.document(), sort_keys=True))
            part.replace(self._file)

    def document(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._now)

    def on(self, name: str) -> bool:
        return bool(self.document().get(name, False))

    def number(self, name: str) -> float | None:
        value = self.document().get(name)
        return None if value is None else float(value)

    def text(self, name: str) -> str | None:
        value = self.document().get(name)
        return None if value is None else str(value)


@dataclass(frozen=True)
class Spec:
    instance: str
    type: str
    user_data: bytes
    gpus: tuple[Gpu, ...]
    faults: Mapping[str, Any]
    disk_gib: int
    nvme_gib: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)  # what its metadata service tells, beside what is above


def parse_spec(text: str | bytes) -> Spec:
    try:
        doc = json.loads(text)
    except ValueError as e:
        raise BadSpec(f"stdin did not carry one JSON document: {e}") from None
    if not isinstance(doc, dict):
        raise BadSpec("the document on stdin is not a JSON object")
    try:
        user_data = base64.b64decode(doc.get("user_data_b64") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise BadSpec("user_data_b64 is not base64") from None
    faults = doc.get("faults") or {}
    Faults(faults)  # refused here, before anything is started
    return Spec(
        instance=str(doc.get("instance") or "i-00000000000000000"),
        type=str(doc.get("type") or "unknown"),
        user_data=user_data,
        gpus=tuple(_gpu(g, n) for n, g in enumerate(doc.get("gpus") or [])),
        faults=faults,
        disk_gib=int(doc.get("disk_gib") or 200),
        nvme_gib=int(doc.get("nvme_gib") or 0),
        metadata={str(name): str(value) for name, value in (doc.get("metadata") or {}).items()},
    )


def _gpu(doc: Mapping[str, Any], number: int) -> Gpu:
    try:
        memory = int(doc["memory_mib"])
        name = str(doc["name"])
    except (KeyError, TypeError, ValueError):
        raise BadSpec(f"gpus[{number}] needs a name and memory_mib, got {doc!r}") from None
    ecc = doc.get("ecc")
    if isinstance(ecc, str):
        ecc = SHOWN.get(ecc.strip().lower())
    return Gpu(
        name=name,
        memory_mib=memory,
        driver=str(doc.get("driver") or "580.126.09"),
        uuid=str(doc.get("uuid") or f"GPU-51510000-0000-4000-8000-{number:012d}"),
        compute_cap=str(doc.get("compute_cap") or "8.9"),
        ecc=None if ecc is None else bool(ecc),
    )
