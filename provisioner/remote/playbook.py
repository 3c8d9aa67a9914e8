"""What is done on a machine, step by step, as data: the format of a playbook, and how one is read.

A playbook has no ifs, no loops and no templates. Its scripts are fixed POSIX sh; what differs between runs comes in
as named values, checked against a type or pattern first and handed to the shell as quoted variables. Secrets and
generated files are handed in as bytes and travel by stdin or `put`, never as values: a value ends in an argv.

    run           a script                      put         bytes into a file, 0600 for a secret
    wait-until    a script, until it exits 0    assert-fact a fact of facts.py, compared

Every step has one verb and a time-out, and may name its `undo`, a script that must be harmless when there is nothing
to undo. A file that breaks a rule is refused with its line before anything is rented. Running is `play.py`; this
file must not know what is being installed or served, and touches no machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from provisioner.errors import RefusedError
from provisioner.remote.facts import FACTS

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\n\r]*$")]
_Script = Annotated[str, StringConstraints(min_length=1, max_length=16384)]
_Seconds = Annotated[int, Field(ge=1, le=7200)]

TYPES = {
    "word": r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}",
    "version": r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}([a-z.+-][a-z0-9.+-]{0,30})?",
    "int": r"[0-9]{1,9}",
    "port": r"[1-9][0-9]{0,4}",
    "path": r"/[A-Za-z0-9._/+-]{1,254}",
    "yes-no": r"yes|no",
    "lease": r"r-[0-9]{8}t[0-9]{6}z-[0-9a-z]{8}",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Value(_Strict):
    """One thing the caller may or must say. `type` is a name from TYPES; `pattern` must match the whole value."""

    about: _Text
    type: str | None = None
    pattern: str | None = None
    default: str | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Value:
        if (self.type is None) == (self.pattern is None):
            raise ValueError("needs exactly one of type and pattern")
        if self.type is not None and self.type not in TYPES:
            raise ValueError(f"type {self.type!r} is not one of {', '.join(TYPES)}")
        try:
            re.compile(self.rule)
        except re.error as error:
            raise ValueError(f"pattern does not compile: {error}") from None
        if self.default is not None and not self.fits(self.default):
            raise ValueError(f"default {self.default!r} does not fit its own rule")
        return self

    @property
    def rule(self) -> str:
        return TYPES[self.type] if self.type is not None else self.pattern or ""

    def fits(self, value: str) -> bool:
        # Control characters are never part of a value, whatever the pattern says.
        return len(value) <= 4096 and not re.search(r"[\x00-\x1f\x7f]", value) and re.fullmatch(self.rule, value) is not None


class Put(_Strict):
    """Bytes into one file below the home folder: written here, given by the caller, or a secret."""

    content: str | None = None
    given: Annotated[_Name | None, Field(alias="from")] = None
    secret: _Name | None = None
    to: Annotated[
        str,
        StringConstraints(pattern=r"^\.gpulease/([A-Za-z0-9._-]+|\$[a-z][a-z0-9_]*)(/([A-Za-z0-9_][A-Za-z0-9._-]*|\$[a-z][a-z0-9_]*))*$"),
    ]
    mode: Literal["0600", "0700"] = "0600"

    @model_validator(mode="after")
    def _one_source(self) -> Put:
        if sum(source is not None for source in (self.content, self.given, self.secret)) != 1:
            raise ValueError("needs exactly one of content, from and secret")
        if self.secret is not None and self.mode != "0600":
            raise ValueError("a secret is written with mode 0600 only")
        if ".." in self.to:
            raise ValueError("the path may not climb")
        return self


class Expect(_Strict):
    """A fact, and what must hold of it. `key` walks into it: "0.memory_total_mib", "cache.free_gib"."""

    fact: str
    key: str | None = None
    equals: str | int | bool | None = None
    at_least: Annotated[int | str | None, Field(alias="at-least")] = None
    count: int | None = None

    @model_validator(mode="after")
    def _known(self) -> Expect:
        if self.fact not in FACTS:
            raise ValueError(f"fact {self.fact!r} is not one of {', '.join(FACTS)}")
        if self.equals is None and self.at_least is None and self.count is None:
            raise ValueError("needs equals, at-least or count")
        return self


class Step(_Strict):
    name: _Text
    run: _Script | None = None
    put: Put | None = None
    wait_until: Annotated[_Script | None, Field(alias="wait-until")] = None
    assert_fact: Annotated[Expect | None, Field(alias="assert-fact")] = None
    stdin: _Name | None = None
    timeout: _Seconds = 60
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    every: _Seconds = 2
    undo: _Script | None = None

    @model_validator(mode="after")
    def _one_verb(self) -> Step:
        verbs = [verb for verb in ("run", "put", "wait_until", "assert_fact") if getattr(self, verb) is not None]
        if len(verbs) != 1:
            raise ValueError(f"has {len(verbs)} verbs; a step needs exactly one of run, put, wait-until and assert-fact")
        if self.stdin is not None and self.run is None:
            raise ValueError("stdin belongs to run")
        return self


class Playbook(_Strict):
    playbook: Literal[1]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    about: _Text
    values: dict[_Name, Value] = {}
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _consistent(self) -> Playbook:
        names = [step.name for step in self.steps]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two steps are called {min(twice)!r}")
        for step in self.steps:
            for used in re.findall(r"\$([a-z][a-z0-9_]*)", step.put.to if step.put else ""):
                if used not in self.values:
                    raise ValueError(f"step {step.name!r} uses ${used}, which is not among values")
        return self


@dataclass(frozen=True)
class Book:
    """A playbook that was read, and where each step stands in its file."""

    doc: Playbook
    source: str
    lines: Mapping[str, int] = field(repr=False)  # by step name

    def where(self, step: Step) -> str:
        return f"{self.source}:{self.lines[step.name]}"


def load(text: str | bytes, source: str) -> Book:
    """Read a playbook, or refuse it with file, line, what was found."""
    from provisioner import yamlsafe

    document = yamlsafe.load(text, source)
    try:
        doc = Playbook.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(part for part in first["loc"] if isinstance(part, str | int))
        at = ".".join(str(part) for part in path) or "the playbook"
        raise RefusedError(f"{document.where(path)}: {at}: {first['msg'].removeprefix('Value error, ')}") from None
    return Book(doc, source, {step.name: document.line(("steps", n)) for n, step in enumerate(doc.steps)})


def resolve(name: str) -> Book:
    """A shipped playbook by its name, or a file by its path."""
    from provisioner.data import folder

    if re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        shipped = folder("playbooks") / f"{name}.yaml"
        if shipped.is_file():
            return load(shipped.read_bytes(), f"{name}.yaml")
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder("playbooks").iterdir() if entry.name.endswith(".yaml"))
        raise RefusedError(f"there is no playbook {name!r}", why=f"shipped are: {', '.join(known)}", next="give the path of a .yaml file")
    try:
        return load(Path(name).read_bytes(), Path(name).name)
    except OSError as error:
        raise RefusedError(f"cannot read the playbook {name!r}", why=str(error.strerror)) from None


def schema() -> dict[str, Any]:
    """The format, as a JSON schema for editors."""
    return Playbook.model_json_schema(by_alias=True)


def settle(book: Book, values: Mapping[str, str]) -> dict[str, str]:
    """The values a playbook will run with, each held against its rule; refuses what is missing, unknown or unfit."""
    from provisioner.clean import clean

    if unknown := sorted(set(values) - set(book.doc.values)):
        raise RefusedError(f"{book.source} has no value {unknown[0]!r}", why=f"it knows: {', '.join(book.doc.values) or 'none'}")
    settled = {}
    for name, rule in book.doc.values.items():
        value = values.get(name, rule.default)
        if value is None:
            raise RefusedError(f"{book.source} needs the value {name!r}", why=rule.about)
        if not rule.fits(value):
            raise RefusedError(
                f"{book.source}: {name} is {clean(repr(value[:80]))}", why=f"it must match {rule.type or rule.pattern}: {rule.about}"
            )
        settled[name] = value
    return settled
