"""Where the YAML and JSONL that ship with gpulease are, in a checkout and in an installed wheel.

The only place that knows both layouts: `profiles/`, `playbooks/` and `auditor/` stand beside the package in a checkout and
under `provisioner/_data/` in the wheel (see `pyproject.toml`).
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def folder(name: str) -> Traversable:
    """The shipped folder of that name: "profiles", "playbooks" or "auditor"."""
    package = files("provisioner")
    shipped = package / "_data" / name
    return shipped if shipped.is_dir() else package / ".." / name
