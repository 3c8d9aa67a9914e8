"""One file to hand over, made of a lease's evidence folder and of nothing else.

It is verified before it is written, so nobody hands over what does not hold; and it is written whole or not at all.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from provisioner.clouds import newest
from provisioner.errors import RefusedError, RunError


def export_proof(name: str | None, to: Path | None) -> tuple[dict[str, Any], str]:
    """Where it was written, as a record and in words."""
    from provisioner.evidence import archive, bundle, verify

    folder = newest(name)
    if not folder.evidence.is_dir():
        raise RefusedError(f"lease {folder.id} has no proof yet", why=f"there is no {folder.evidence}", next=f"gpulease proof {folder.id}")
    report = verify.verify(folder.evidence)
    if report.exit:
        raise RunError(f"the proof of {folder.id} does not hold", why=report.problems[0].message, next=f"gpulease verify {folder.evidence}")
    path = Path(f"{folder.evidence.name}.zip") if to is None else to
    data = archive.packed(bundle.members(folder.evidence), folder.evidence.name)
    _write(path, data)
    record = {"schema": "gpulease/export/1", "lease": folder.id, "path": str(path), "bytes": len(data), "tier": report.json()["tier"]}
    return record, f"written   {path} ({len(data)} bytes)\ncheck it  gpulease verify {path}"


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise RefusedError(f"{path} cannot be written", why=e.strerror or str(e), next="gpulease export --to FILE") from None
