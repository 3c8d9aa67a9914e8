"""What ships with gpulease, as it is, so that it can be copied and changed: profiles, playbooks, eval sets, and schemas.

The text is the file's own. It must not know how any of it is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from provisioner import profile, providers
from provisioner.errors import UsageError


def shipped(what: str, name: str | None) -> str:
    """The shipped thing itself, so that it can be copied and changed; or the list of them."""
    from provisioner.data import folder
    from provisioner.evals import cases
    from provisioner.remote import playbook

    if what == "auditor":
        return folder("auditor").joinpath("verify_shutdown.py").read_text(encoding="utf-8").removesuffix("\n")
    kinds = {"profile": profile.names, "playbook": playbooks, "eval": cases.names, "provider": providers.names}
    singular = what.removesuffix("s")
    if what == "schema":
        schemas: Mapping[str, Callable[[], dict[str, Any]]] = {
            "profile": profile.schema,
            "playbook": playbook.schema,
            "predicate": _predicate,
        }
        if name is None or name not in schemas:
            asked = "which schema?" if name is None else f"there is no schema called {name!r}"
            raise UsageError(asked, why=f"there are: {', '.join(schemas)}", next="gpulease show schema profile")
        return json.dumps(schemas[name](), indent=2)
    if singular not in kinds:
        raise UsageError(
            f"nothing shipped is called {what!r}",
            why="there are: profiles, playbooks, evals, providers, schema, auditor",
            next="gpulease show profiles",
        )
    known = kinds[singular]()
    if name is None:
        return "\n".join(known)
    if singular == "provider":
        raise UsageError("a provider is code, not a file", why="there is nothing to print", next="docs/providers.md")
    if name not in known:
        raise UsageError(f"no {singular} is called {name!r}", why=f"there are: {', '.join(known)}", next=f"gpulease show {singular}s")
    where = {
        "profile": folder("profiles") / f"{name}.yaml",
        "playbook": folder("playbooks") / f"{name}.yaml",
        "eval": folder("profiles") / "evals" / f"{name}.jsonl",
    }
    return where[singular].read_text(encoding="utf-8").rstrip("\n")


def playbooks() -> list[str]:
    from provisioner.data import folder

    return sorted(item.name.removesuffix(".yaml") for item in folder("playbooks").iterdir() if item.name.endswith(".yaml"))


def _predicate() -> dict[str, Any]:
    from provisioner.evidence import predicate

    return predicate.published()
