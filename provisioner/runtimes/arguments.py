"""A profile's flags, held against the server's own parser before a machine is paid for.

`flags/ENGINE.json` is a table of the flags that the real parser knows (made by tools/compact_runtime_flags.py from a
dump of it). A name that is not in it, a value that is not among its choices, a switch given a word: each would end
the server some minutes into a paid run, so each is refused here, with the nearest name that exists.

Abbreviations are refused although argparse takes them: what one means changes with the next release. This file must
not know which flags are ours; that is each runtime's.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from provisioner.errors import RefusedError
from provisioner.runtimes.spec import FlagValue, ServeSpec


@dataclass(frozen=True)
class Flag:
    name: str
    switch: bool = False
    off: str | None = None  # the flag that says the opposite
    many: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()
    deprecated: bool = False


@dataclass(frozen=True)
class Table:
    engine: str
    version: str
    flags: Mapping[str, Flag]


@cache
def table(engine: str) -> Table:
    document = json.loads((files("provisioner.runtimes") / "flags" / f"{engine}.json").read_text(encoding="utf-8"))
    known = {
        name: Flag(name, **{**row, "choices": tuple(str(choice) for choice in row.get("choices", ()))})
        for name, row in document["flags"].items()
    }
    return Table(document["engine"], document["version"], known)


ELSEWHERE = {
    "sglang": {
        "--max-model-len": "--context-length",
        "--gpu-memory-utilization": "--mem-fraction-static",
        "--max-num-seqs": "--max-running-requests",
        "--seed": "--random-seed",
        "--max-num-batched-tokens": "--chunked-prefill-size",
        "--disable-prefix-caching": "--disable-radix-cache",
        "--tp": "--tp-size",
    },
    "vllm": {
        "--context-length": "--max-model-len",
        "--mem-fraction-static": "--gpu-memory-utilization",
        "--max-running-requests": "--max-num-seqs",
        "--random-seed": "--seed",
        "--chunked-prefill-size": "--max-num-batched-tokens",
        "--disable-radix-cache": "--disable-prefix-caching",
        "--tp-size": "--tensor-parallel-size",
        "--tp": "--tensor-parallel-size",
        "--no-enable-prefix-caching": "--disable-prefix-caching",
        "--model-path": "model.id in the profile",
    },
}
"""What the same thing is called, for names that spelling does not lead to."""


def render(engine: str, flags: Mapping[str, FlagValue], reserved: Mapping[str, str]) -> list[str]:
    """The flags as arguments, in the profile's order; refuses what the server would, and what is ours to set."""
    known = table(engine)
    out: list[str] = []
    seen: dict[str, str] = {}
    for written, value in flags.items():
        name = _name(written)
        if name in reserved:
            raise RefusedError(f"runtime.flags may not set {name}", why=reserved[name], next=f"take {written!r} out of the profile")
        if name not in known.flags:
            raise RefusedError(
                f"{engine} {known.version} has no flag {name}", why=_nearest(engine, name), next="correct runtime.flags in the profile"
            )
        flag = known.flags[name]
        for same in (name, flag.off):
            if same in seen:
                raise RefusedError(f"runtime.flags sets {name} twice", why=f"as {seen[same]!r} and as {written!r}")
        seen[name] = str(written)
        out += _arguments(flag, value)
    return out


def _name(written: str) -> str:
    return "--" + str(written).lstrip("-").replace("_", "-")


def _nearest(engine: str, name: str) -> str:
    if (same := ELSEWHERE[engine].get(name)) is not None:
        return f"here it is {same}"
    known = table(engine).flags
    begins = sorted(flag for flag in known if flag.startswith(name))
    near = begins[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"the nearest is {near[0]}" if near else "none is spelled like it"


def _arguments(flag: Flag, value: FlagValue) -> list[str]:
    if flag.switch:
        if value is True or value is None:
            return [flag.name]
        if value is False:
            return [flag.off] if flag.off else []
        raise _unfit(flag, value, "true or false")
    if isinstance(value, bool) or (value is None and not flag.optional):
        raise _unfit(flag, value, "a value")
    if value is None:
        return [flag.name]
    if flag.many:
        words = [_word(flag, item) for item in (value if isinstance(value, list) else [value])]
        if not words or any(word.startswith("-") for word in words):
            raise _unfit(flag, value, "one or more words that do not begin with -")
        return [flag.name, *words]
    # One word with "=", so that a value that begins with "-" (-1 is one) can never be read as a flag.
    return [f"{flag.name}={_word(flag, value)}"]


def _word(flag: Flag, value: FlagValue) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _unfit(flag, value, "text or a whole number")
    word = str(value)
    if len(word) > 4096 or any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise _unfit(flag, value, "one line of text")
    if flag.choices and word not in flag.choices:
        near = difflib.get_close_matches(word, flag.choices, n=1)
        raise _unfit(flag, value, f"one of {', '.join(flag.choices)}" + (f" (did you mean {near[0]}?)" if near else ""))
    return word


def _unfit(flag: Flag, value: FlagValue, expected: str) -> RefusedError:
    return RefusedError(
        f"runtime.flags: {flag.name} is {value!r}"[:200], why=f"expected {expected}", next="correct runtime.flags in the profile"
    )


def default_seqs(concurrency: int) -> int:
    """Twice what will be asked at once, so that the load never queues for want of a slot; 8 costs nothing."""
    return max(8, 2 * concurrency)


def trusted(spec: ServeSpec) -> dict[str, FlagValue]:
    """The flags, with consent to run the model's own code spelled out: the repository and commit, not just "true"."""
    flags = dict(spec.flags)
    for written in list(flags):
        if written.lstrip("-").replace("_", "-") != "trust-remote-code" or flags[written] is False:
            continue
        consent = f"{spec.model}@{spec.revision}"
        if spec.revision is None or flags[written] != consent:
            raise RefusedError(
                "trust-remote-code runs Python from the model's repository on the machine",
                why="it needs consent to one commit of one repository",
                next=f'if you have read that code, write trust-remote-code: "{consent}"',
            )
        flags[written] = True
    return flags
