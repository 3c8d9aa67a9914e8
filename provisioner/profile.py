"""A profile: what to rent, what to serve, what to ask it, what it may cost, and how good is good enough.

People write it as YAML (docs/profiles.md); `load` gives a frozen Profile in the units the core counts in, or one
error that lists every mistake in the file with its line, what was found, what was expected and the nearest name that
exists. Shipped profiles are found by name; anything with a slash, or ending in .yaml or .yml, is a path. A file of
the same name in the current folder is never taken instead of a shipped one.

Nothing here is guessed: a model is pinned to a commit, money is exact, and what contradicts itself (24 GiB on a card
that shows 23034 MiB) is refused before anything is rented. This file must not know about providers or prices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner import profile_fields as f
from provisioner import runtimes
from provisioner.clean import clean
from provisioner.data import folder
from provisioner.errors import RefusedError, UsageError
from provisioner.model import Requirements
from provisioner.profile_sections import Eval, Launch, Load, Model, Runtime, Section, Written
from provisioner.yamlsafe import MAX_BYTES, Document, shown
from provisioner.yamlsafe import Path as KeyPath
from provisioner.yamlsafe import load as load_yaml


@dataclass(frozen=True)
class Profile:
    """A profile in the units the core counts in, with the exact text it came from."""

    name: str
    about: str
    source: str  # where it was read: a path, or the shipped name
    text: str = field(repr=False)
    sha256: str
    requirements: Requirements
    model: Model
    runtime: Runtime
    eval: Eval
    load: Load
    budget_micro_usd: int
    max_seconds: int
    thresholds: dict[str, int | str]  # a fraction is kept as its exact text
    waived: tuple[str, ...]
    on_interruption: str = "stop"
    launch: Launch = field(default_factory=lambda: Launch.model_validate({}))

    def without_ingress(self) -> Profile:
        """With a way in that no address may use: the profile's own, else an Instance Connect endpoint."""
        reach = "endpoint" if self.launch.reach == "address" else self.launch.reach
        return replace(self, launch=self.launch.model_copy(update={"reach": reach}))

    def rehearsed(self) -> Profile:
        """As it is rehearsed: without what only the user's own account has."""
        return replace(self, launch=Launch.model_validate({"fleet": self.launch.fleet, "reach": self.launch.reach}))


def names() -> list[str]:
    """The profiles that ship with gpulease."""
    return sorted(item.name.removesuffix(".yaml") for item in folder("profiles").iterdir() if item.name.endswith(".yaml"))


def load(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, or a file by path. UsageError when there is none, RefusedError when it is wrong."""
    wanted = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in wanted or wanted.endswith((".yaml", ".yml")):
        return parse(_read(Path(wanted)), wanted, Path(wanted).parent)
    if wanted not in names():
        near = f.nearest(wanted, names())
        here = next((f"./{wanted}{end}" for end in (".yaml", ".yml", "") if Path(wanted + end).is_file()), "")
        raise UsageError(
            f"no shipped profile is called {shown(wanted)}" + (f"; {near}" if near else ""),
            why=f"shipped: {', '.join(names())}; a path has a slash or ends in .yaml",
            next=f"use the path {here}" if here else "gpulease show profiles",
        )
    shipped = folder("profiles") / f"{wanted}.yaml"
    profile = parse(shipped.read_bytes(), f"profiles/{wanted}.yaml", None)
    return profile


def parse(text: str | bytes, source: str, base: Path | None = None) -> Profile:
    """A profile from its text. `base` is the folder that a relative path of an eval set starts from."""
    document = load_yaml(text, source)
    if not isinstance(document.data, dict):
        raise RefusedError(f"{document.where()}: {shown(document.data)}; expected a mapping of keys such as profile, name, needs", next=SEE)
    try:
        written = Written.model_validate(document.data)
    except ValidationError as error:
        raise _refusal(source, [_complaint(document, item) for item in error.errors(include_url=False)]) from None
    eval_ = _located(written.eval, base)
    wrong = list(_contradictions(written, eval_))
    if not any(path[0] == "model" for path, _ in wrong):
        wrong += _unfit_for_the_runtime(written)
    if wrong:
        raise _refusal(source, [_line(document, path, words) for path, words in wrong])
    needs = written.needs
    return Profile(
        name=written.name,
        about=written.about,
        source=source,
        text=document.text,
        sha256=hashlib.sha256(document.text.encode()).hexdigest(),
        requirements=Requirements(
            needs.gpu,
            needs.gpus,
            needs.vram_gib,
            needs.driver,
            needs.disk_gib,
            needs.regions,
            needs.types,
            needs.purchase,
            needs.spot_max_usd_per_hour,
        ),
        model=written.model,
        runtime=written.runtime,
        eval=eval_,
        load=written.load,
        budget_micro_usd=written.budget.usd,
        max_seconds=written.budget.minutes * 60,
        thresholds=dict(written.thresholds),
        waived=written.waive,
        on_interruption=written.on_interruption,
        launch=written.launch,
    )


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a profile, for editors, with the names that exist today."""
    found = Written.model_json_schema()
    needs = found["$defs"]["Needs"]["properties"]
    needs["gpu"]["anyOf"][0]["examples"] = sorted(f.gpus())
    needs["types"]["items"]["enum"] = sorted(f.catalogue())
    found["properties"]["thresholds"]["propertyNames"] = {"enum": f.thresholds()}
    found["$defs"]["Eval"]["properties"]["set"]["examples"] = list(f.eval_sets())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gpulease profile",
        **{k: v for k, v in found.items() if k != "title"},
    }


SEE = "gpulease show schema profile   (every key), gpulease show profile smoke   (an example)"


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise UsageError(f"profile {shown(str(path))} {what}", next="gpulease show profiles")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read profile {shown(str(path))}: {error.strerror}") from error


def _located(eval_: Eval, base: Path | None) -> Eval:
    """With a path of the user's made absolute, so that it means the same file from any folder."""
    if "/" not in eval_.set:
        return eval_
    return eval_.model_copy(update={"set": str(((base or Path()) / eval_.set).resolve())})


def _contradictions(written: Written, eval_: Eval) -> Iterator[tuple[KeyPath, str]]:
    """What each key allows by itself, but not together."""
    needs, model = written.needs, written.model
    if len(needs.regions) > 1:
        for key in ("image", "security_group", "subnet"):
            if getattr(written.launch, key):
                yield ("launch", key), f"an id belongs to one region; expected one under needs.regions, found {len(needs.regions)}"
    if not model.id.startswith("/") and model.revision is None:
        yield ("model", "revision"), f"missing; expected the commit of {model.id}, 40 hex digits (only a local path needs none)"
    if model.id.startswith("/") and model.revision is not None:
        yield ("model", "revision"), "a local path has no revision; expected none, or an id of the hub"
    for name, limit in written.thresholds.items():
        if name.endswith("_percent") and Decimal(limit) > 100:
            yield ("thresholds", name), f"found {limit}; expected a percentage, 0 to 100"
    if "/" in eval_.set and not Path(eval_.set).is_file():
        yield (
            ("eval", "set"),
            f"found {shown(eval_.set, 200)}, which is not a file; expected a .jsonl file, relative to the profile's folder",
        )
    if needs.gpus == 0:
        for key in ("gpu", "vram_gib", "driver"):
            if getattr(needs, key):
                yield ("needs", key), "asks for a GPU, but gpus is 0; expected neither or both"
    elif needs.gpu and 0 < f.gpus()[needs.gpu] < needs.vram_gib:
        big = [f"{name} {mib} MiB" for name, mib in sorted(f.gpus().items(), key=lambda item: item[1]) if mib >= needs.vram_gib]
        words = f"asks for {needs.vram_gib} MiB, but an {needs.gpu} shows {f.gpus()[needs.gpu]} MiB"
        yield ("needs", "vram_gib"), words + f"; expected at most that (with enough: {', '.join(big) or 'none known'})"
    for index, name in enumerate(needs.types):
        row = f.catalogue()[name]
        has = f.family(row["gpu"]) if row["gpus"] else ""
        if needs.gpus > row["gpus"] or (needs.gpu and needs.gpu != has):
            yield (
                ("needs", "types", index),
                f"{name} has {row['gpus']} × {has or 'GPU'}; expected {needs.gpus} × {needs.gpu or 'any GPU'}, as gpu and gpus say",
            )
        elif needs.gpus and row["smiMib"] is not None and row["smiMib"] < needs.vram_gib:
            yield ("needs", "types", index), f"{name} shows {row['smiMib']} MiB per GPU; expected {needs.vram_gib} MiB, as vram_gib says"


def _unfit_for_the_runtime(written: Written) -> Iterator[tuple[KeyPath, str]]:
    """Flags and variables as the server itself would judge them, one by one, so that each keeps its line."""
    model, runtime = written.model, written.runtime
    server = runtimes.get(runtime.name)
    spec = runtimes.ServeSpec(
        model.id,
        model.revision,
        model.served_name,
        runtime.version,
        concurrency=written.load.concurrency,
        gpus=max(1, written.needs.gpus),
        command=runtime.command,
    )
    alone = 0
    for key, value in runtime.flags.items():
        try:
            server.argv(replace(spec, flags={key: value}))
        except RefusedError as error:
            alone += 1
            yield ("runtime", "flags", key), _as_one(error)
    for key, text in runtime.env.items():
        try:
            server.env(replace(spec, env={key: text}))
        except RefusedError as error:
            yield ("runtime", "env", key), _as_one(error)
    if not alone:
        try:
            server.argv(replace(spec, flags=runtime.flags))
        except RefusedError as error:  # two flags that do not go together
            yield ("runtime", "flags"), _as_one(error)


def _as_one(error: RefusedError) -> str:
    return "; ".join(part for part in (error.what, error.why) if part)


def _refusal(source: str, complaints: list[tuple[int, str]]) -> RefusedError:
    """All of them, in the order of the file."""
    lines = list(dict.fromkeys(f"{source}:{line}: {words}" for line, words in sorted(complaints)))
    if len(lines) == 1:
        return RefusedError(lines[0], next=SEE)
    return RefusedError(f"{source}: {len(lines)} things to correct\n" + "\n".join(f"  {line}" for line in lines), next=SEE)


def _line(document: Document, path: KeyPath, words: str) -> tuple[int, str]:
    return document.line(path), f"{clean('.'.join(map(str, path)), limit=120)}: {words}"


def _complaint(document: Document, item: Any) -> tuple[int, str]:
    """One of pydantic's findings in our words."""
    path = tuple(part for part in item["loc"] if part != "[key]")
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return _line(document, path, f"unknown key; expected {_siblings(path)}")
    if kind == "missing":
        return _line(document, path, f"missing; expected {_expected(path)}")
    error = item.get("ctx", {}).get("error")
    if isinstance(error, f.Wrong):
        found = error.found or f"found {shown(path[-1] if item['loc'][-1] == '[key]' else value)}"
        return _line(document, path, f"{found}; expected {error.expected}" + (f"; {error.hint}" if error.hint else ""))
    return _line(document, path, f"found {shown(value)}; expected {_expected(path)}")


def _siblings(path: KeyPath) -> str:
    """The keys that may stand there, the nearest of them, or the section where this key belongs."""
    section = _section(path[:-1])
    known = list(section.model_fields) if section else []
    word = str(path[-1])
    elsewhere = [name for name, sub in _sections() if word in sub.model_fields]
    near = f"it belongs under {elsewhere[0]}" if elsewhere else f.nearest(word, known)
    return ", ".join(known) + (f"; {near}" if near else "")


def _expected(path: KeyPath) -> str:
    section = _section(path[:-1])
    while section is None or path[-1] not in section.model_fields:
        path = path[:-1]
        section = _section(path[:-1])
    return section.model_fields[str(path[-1])].description or ""


def _section(path: KeyPath) -> type[Section] | None:
    if not path:
        return Written
    return dict(_sections()).get(str(path[0])) if len(path) == 1 else None


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, info in Written.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield name, info.annotation
