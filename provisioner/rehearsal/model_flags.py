"""Which command lines the real servers refuse: argparse, fed with the flags of the real parsers (flags/*.json).

A profile's flags are the part of a run that fails most often and latest: after the machine is rented and the model
is there. So the simulated server refuses what vLLM 0.33.0 and SGLang 0.5.23 refuse: unknown flags, values that are
not among the choices, words where a number belongs, ambiguous prefixes; unique prefixes are accepted, as argparse
does. Values that only the model's config can judge are not checked here. Stdlib only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

FLAGS = Path(__file__).parent / "flags"


def load(engine: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FLAGS / f"{engine}.json").read_text())
    return found


def parser(engine: str) -> argparse.ArgumentParser:
    positional = "[model_tag] " if engine == "vllm" else ""
    made = argparse.ArgumentParser(prog=f"{engine} serve", usage=f"{engine} serve {positional}[options]   (SIMULATED by gpulease)")
    if engine == "vllm":
        made.add_argument("model_tag", nargs="?")
    rows = load(engine)["flags"]
    assert isinstance(rows, list)
    for row in rows:
        names = list(row["names"])
        if row.get("no"):
            names += [n for n in (f"--no-{name[2:]}" for name in row["names"] if name.startswith("--")) if n not in names]
        if row.get("nargs") == 0:
            made.add_argument(*names, dest=row["dest"], action="store_true", default=None)
        elif row.get("choices"):
            made.add_argument(*names, dest=row["dest"], nargs=row.get("nargs"), choices=row["choices"], default=None)
        else:
            made.add_argument(*names, dest=row["dest"], nargs=row.get("nargs"), type=number if row.get("number") else str, default=None)
    return made


def number(text: str) -> float:
    return float(text)


number.__name__ = "int"  # argparse quotes it: "invalid int value: 'two'"


def parse(engine: str, argv: Sequence[str]) -> argparse.Namespace:
    """Exits 2 with argparse's own words when the real server would."""
    words: list[str] = []
    for word in argv:
        if engine == "vllm" and word.startswith("--"):
            # vLLM's parser takes --max_model_len and --compilation-config.level too
            name, equals, value = word.partition("=")
            name = "--" + name[2:].replace("_", "-").partition(".")[0]
            word = name + equals + value
        words.append(word)
    return parser(engine).parse_args(words)


def human_int(text: str) -> int:
    """vLLM's --max-model-len: 8192, 8k (thousands), 8K (1024s); -1 and auto mean the model's own."""
    text = text.strip()
    if text in ("-1", "auto"):
        return -1
    factor = {"k": 1000, "m": 10**6, "K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
    return int(float(text[:-1]) * factor) if factor != 1 else int(text)
