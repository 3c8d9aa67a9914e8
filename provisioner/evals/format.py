"""What a line of an eval set may hold, as pydantic models, and its complaints in words that name the place.

Imported only when an eval set is read: pydantic is slow to load, and nothing but the edge needs it. Unknown keys are
refused with the nearest known one; what pydantic cannot know (a number that is none, a pattern outside our subset, a
choice that is no option) is checked here as well, so that scoring never meets a malformed check.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from provisioner.evals import numbers, pattern
from provisioner.evals import schema as json_schema

Text = Annotated[str, Field(max_length=1 << 20)]
Word = Annotated[str, Field(min_length=1, max_length=4096)]
Words = Annotated[list[Word], Field(min_length=1, max_length=64)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text


class Values(Strict):
    value: Word | None = None
    any: Words | None = None


class Exact(Values):
    type: Literal["exact"]

    @model_validator(mode="after")
    def one_of_two(self) -> Exact:
        if (self.value is None) == (self.any is None):
            raise ValueError("give either value or any")
        return self


class Contains(Values):
    type: Literal["contains"]
    none: Words | None = None

    @model_validator(mode="after")
    def something(self) -> Contains:
        if self.value is not None and self.any is not None:
            raise ValueError("give either value or any, not both")
        if self.value is None and self.any is None and self.none is None:
            raise ValueError("give value, any or none")
        return self


class Regex(Strict):
    type: Literal["regex"]
    pattern: Word

    @field_validator("pattern")
    @classmethod
    def understood(cls, text: str) -> str:
        pattern.compile(text)
        return text


class Number(Strict):
    type: Literal["number"]
    value: Word
    tolerance: Word = "0"

    @field_validator("value", "tolerance")
    @classmethod
    def exact(cls, text: str) -> str:
        numbers.exact(text)
        return text

    @field_validator("tolerance")
    @classmethod
    def not_negative(cls, text: str) -> str:
        if numbers.exact(text) < 0:
            raise ValueError("a tolerance below 0")
        return text


class Choice(Strict):
    type: Literal["choice"]
    options: Annotated[list[Word], Field(min_length=2, max_length=64)]
    value: Word
    aliases: dict[str, Words] = {}

    @model_validator(mode="after")
    def known(self) -> Choice:
        for name in [self.value, *self.aliases]:
            if name not in self.options:
                raise ValueError(f"{name!r} is not one of the options")
        spelled = [name.casefold() for name in [*self.options, *(a for names in self.aliases.values() for a in names)]]
        if twice := [name for name in spelled if spelled.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} names two options")
        return self


class Schema(Strict):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]

    @field_validator("schema_")
    @classmethod
    def understood(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if found := json_schema.complaint(schema):
            raise ValueError(found)
        return schema


Check = Annotated[Exact | Contains | Regex | Number | Choice | Schema, Field(discriminator="type")]


class Line(Strict):
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    tags: Annotated[list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]], Field(max_length=16)] = []
    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    checks: Annotated[list[Check], Field(min_length=1, max_length=16)]
    gold: Text
    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    note: Text | None = None


_CHECKS: dict[str, type[Strict]] = {
    "exact": Exact,
    "contains": Contains,
    "regex": Regex,
    "number": Number,
    "choice": Choice,
    "json_schema": Schema,
}


def complaints(document: Any) -> list[str]:
    """Everything wrong with one line's document, each with its place."""
    try:
        Line.model_validate(document)
    except ValidationError as fault:
        return [_complaint(dict(error)) for error in fault.errors(include_url=False, include_context=False)]
    return []


def _complaint(error: dict[str, Any]) -> str:
    place, model, shown = list(error["loc"]), Line, ""
    keys: type[Strict] = model
    for i, part in enumerate(place):
        if isinstance(part, int):
            shown += f"[{part}]"
            keys = Message if place[i - 1] == "messages" else keys
        elif i >= 2 and place[i - 2] == "checks" and part in _CHECKS:
            keys = _CHECKS[part]  # pydantic names the kind of check here; it is no part of the path
        else:
            shown += f".{part}" if shown else str(part)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in keys.model_fields.items()]
        near = difflib.get_close_matches(str(place[-1]), known, 1)
        message = f'not a key here; did you mean "{near[0]}"?' if near else f"not a key here ({', '.join(known)})"
    elif error["type"] == "missing":
        message = "missing"
    elif error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        said = str(error["input"].get("type", "")) if isinstance(error["input"], dict) else ""
        near = difflib.get_close_matches(said, _CHECKS, 1)
        message = f"{said[:40]!r} is not a type of check" + (f'; did you mean "{near[0]}"?' if near else f" ({', '.join(_CHECKS)})")
    return f"{shown}: {message}" if shown else message
