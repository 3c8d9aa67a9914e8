#!/usr/bin/env python3
"""Write provisioner/runtimes/flags/ENGINE.json from a dump of the engine's own argument parser.

    python tools/compact_runtime_flags.py DUMP.json > provisioner/runtimes/flags/ENGINE.json

A dump is {"engine", "version", "flags": {"--name": {"dest", "flag" (argparse action), "nargs", "choices", "deprecated"}}}.
Kept is what decides whether a command line will parse: which names exist, which take no value, one or several, the
closed choices, and the name that switches a switch the other way. Defaults are dropped: they depend on the machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SKIPPED = {"--help"}


def compact(dump: dict[str, Any]) -> dict[str, Any]:
    flags: dict[str, dict[str, Any]] = {name: flag for name, flag in dump["flags"].items() if name not in SKIPPED}
    by_dest: dict[str, list[str]] = {}
    for name, flag in flags.items():
        by_dest.setdefault(flag["dest"], []).append(name)
    return {
        "engine": dump["engine"],
        "version": dump["version"],
        "flags": {name: _one(name, flag, by_dest[flag["dest"]]) for name, flag in sorted(flags.items())},
    }


def _one(name: str, flag: dict[str, Any], same: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if flag["nargs"] == 0 or "Const" in flag["flag"]:
        out["switch"] = True
        if off := [other for other in same if _opposite(name, other)]:
            out["off"] = off[0]
    elif flag["nargs"] in ("+", "*"):
        out["many"] = True
    elif flag["nargs"] == "?":
        out["optional"] = True
    if flag["choices"] and not out.get("switch"):
        out["choices"] = flag["choices"]
    if flag["deprecated"]:
        out["deprecated"] = True
    return out


def _opposite(one: str, other: str) -> bool:
    def positive(name: str) -> tuple[str, bool]:
        for prefix, sense in (("--no-", False), ("--disable-", False), ("--enable-", True)):
            if name.startswith(prefix):
                return name.removeprefix(prefix), sense
        return name.removeprefix("--"), True

    (stem, sense), (other_stem, other_sense) = positive(one), positive(other)
    return (stem == other_stem and sense is not other_sense) or other == "--no-" + one[2:] or one == "--no-" + other[2:]


def main() -> None:
    document = compact(json.loads(Path(sys.argv[1]).read_text()))
    head = f'{{"engine": {json.dumps(document["engine"])}, "version": {json.dumps(document["version"])}, "flags": {{\n'
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(flag)}" for name, flag in document["flags"].items())
    sys.stdout.write(head + rows + "\n}}\n")


if __name__ == "__main__":
    main()
