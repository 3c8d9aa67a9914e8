"""Make provisioner/rehearsal/flags/*.json from dumps of the real servers' argument parsers.

    python tools/compact_flags.py vllm_flags.json sglang_flags.json provisioner/rehearsal/flags

A dump is `{"engine", "version", "flags": {"--flag": {"dest", "nargs", "choices", "default", "flag"}}}`, taken from
the argparse actions of an installed vLLM or SGLang. Kept is what decides whether a command line is refused: names
that belong together, how many values each takes, the choices, and whether the value is a number. Defaults are not
kept: they say nothing about what is refused, and the simulated server has its own.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

# Short options are not in the dumps; these are the ones that both projects document.
SHORT = {
    "vllm": {"tensor_parallel_size": "-tp", "pipeline_parallel_size": "-pp", "data_parallel_size": "-dp", "quantization": "-q"},
    "sglang": {},
}


def compact(dump: dict) -> dict:
    engine = dump["engine"]
    grouped: dict[tuple, list[str]] = {}
    for name, flag in sorted(dump["flags"].items()):
        if flag["flag"] == "_HelpAction":
            continue
        number = bool(re.fullmatch(r"-?\d+(\.\d+)?", flag["default"] or ""))
        key = (flag["dest"], flag["nargs"], tuple(flag["choices"] or ()), number and flag["nargs"] is None, flag["flag"])
        grouped.setdefault(key, []).append(name)
    rows = []
    for (dest, nargs, choices, number, action), names in sorted(grouped.items(), key=lambda item: item[1]):
        row: dict = {"names": names, "dest": dest}
        if dest in SHORT[engine] and nargs is None:
            row["names"] = [*names, SHORT[engine][dest]]
        if nargs is not None:
            row["nargs"] = nargs
        if choices:
            row["choices"] = list(choices)
        if number:
            row["number"] = True
        if action == "EnableDisableAction":  # vLLM also takes --no-X for each of these
            row["no"] = True
        rows.append(row)
    return {"engine": engine, "version": dump["version"].split("+")[0], "flags": rows}


def main() -> None:
    *dumps, folder = (Path(a) for a in sys.argv[1:])
    for path in dumps:
        made = compact(json.loads(path.read_text()))
        head = json.dumps({k: v for k, v in made.items() if k != "flags"})[:-1]
        lines = ",\n".join(" " + json.dumps(row, separators=(",", ":")) for row in made["flags"])
        (folder / f"{made['engine']}.json").write_text(f'{head}, "flags": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
