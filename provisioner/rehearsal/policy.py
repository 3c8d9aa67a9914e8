"""An IAM policy decided: does this document allow this action on this resource, in this context?

moto can enforce actions and ignores Resource and Condition, which is where least privilege lives. So the few parts of the
language that gpulease's own policies use are decided here: Action and NotAction with wildcards, Resource ARNs, the string,
number and ARN operators with IfExists, ForAnyValue and ForAllValues, Null and Bool. What a policy uses beyond that is refused when
it is handed over (`check`), never read as something that matches: a test must not pass because a line was skipped.

An explicit Deny wins; what nothing allows is denied. Condition keys are compared without case, as AWS does.
Pure: no state, no I/O; what a call asks permission for is said in `authorization.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

Document = Mapping[str, Any]
Context = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Ask:
    """One permission that a call needs. Keys of the context are in lower case."""

    action: str  # "ec2:RunInstances"
    resource: str  # an ARN, or "*"
    context: Context = field(default_factory=dict)


class Malformed(ValueError):
    """A policy that this evaluator cannot decide, and why."""


def check(document: object) -> Document:
    """The document, when every part of it can be decided; else Malformed."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError as e:
            raise Malformed(f"not JSON: {e}") from None
    if not isinstance(document, Mapping) or not _statements(document):
        raise Malformed("a policy is an object with statements")
    for statement in _statements(document):
        if unknown := set(statement) - {
            "Sid",
            "Effect",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
            "Principal",
        }:
            raise Malformed(f"a statement with {', '.join(sorted(unknown))}")
        if statement.get("Effect") not in ("Allow", "Deny") or ("Action" in statement) == ("NotAction" in statement):
            raise Malformed("a statement has an Effect, and either Action or NotAction")
        for operator in statement.get("Condition", {}):
            _operator(operator)
    return document


def allows(documents: Iterable[Document], ask: Ask) -> bool:
    """Is it allowed by one of them, and denied by none?"""
    effects = {s["Effect"] for document in documents for s in _statements(document) if _applies(s, ask)}
    return effects == {"Allow"}


def first_denied(documents: Sequence[Document], asks: Iterable[Ask]) -> Ask | None:
    return next((ask for ask in asks if not allows(documents, ask)), None)


def trusts(document: Document, service: str, context: Context) -> bool:
    """Does this trust policy let the service take the role on?"""
    ask = Ask("sts:AssumeRole", "*", context)
    effects = {s["Effect"] for s in _statements(document) if _is_for(s, service) and _applies(s, ask)}
    return effects == {"Allow"}


def _is_for(statement: Mapping[str, Any], service: str) -> bool:
    principal = statement.get("Principal")
    return principal == "*" or (isinstance(principal, Mapping) and service in _many(principal.get("Service", ())))


def _statements(document: Document) -> list[Mapping[str, Any]]:
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def _applies(statement: Mapping[str, Any], ask: Ask) -> bool:
    if "NotAction" in statement:
        acts = not any(like(one, ask.action, case=False) for one in _many(statement["NotAction"]))
    else:
        acts = any(like(one, ask.action, case=False) for one in _many(statement["Action"]))
    if not acts:
        return False
    if "NotResource" in statement:
        if any(_covers(one, ask.resource) for one in _many(statement["NotResource"])):
            return False
    elif not any(_covers(one, ask.resource) for one in _many(statement.get("Resource", "*"))):
        return False
    return all(
        _holds(operator, key, _many(wanted), ask.context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _covers(pattern: str, resource: str) -> bool:
    """A call that names no resource is asked for on `*`, and a statement about one resource does not cover that."""
    return pattern == "*" or (resource != "*" and like(pattern, resource))


def _holds(operator: str, key: str, wanted: Sequence[str], context: Context) -> bool:
    many, base, if_exists, match, negated = _operator(operator)
    values = context.get(key.lower())
    if base == "Null":
        return (values is None) == (str(wanted[0]).lower() == "true")
    if values is None:
        return if_exists or negated or many == "ForAllValues"
    one = [any(match(str(want), value) for want in wanted) != negated for value in values]
    return all(one) if many == "ForAllValues" else any(one)


@cache
def _operator(name: str) -> tuple[str, str, bool, Callable[[str, str], bool], bool]:
    found = re.fullmatch(r"(?:(ForAnyValue|ForAllValues):)?([A-Za-z]+?)(IfExists)?", name)
    if found is None or found[2] not in _MATCHES:
        raise Malformed(f"the condition operator {name}, which the rehearsal cannot decide")
    match, negated = _MATCHES[found[2]]
    return found[1] or "", found[2], bool(found[3]), match, negated


def like(pattern: str, text: str, *, case: bool = True) -> bool:
    """`*` is anything, `?` one character."""
    return bool(_pattern(pattern if case else pattern.lower()).fullmatch(text if case else text.lower()))


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


def _equal(want: str, value: str) -> bool:
    return want == value


def _equal_any_case(want: str, value: str) -> bool:
    return want.lower() == value.lower()


def _same_number(want: str, value: str) -> bool:
    try:
        return Decimal(want) == Decimal(value)
    except ArithmeticError:
        return False


_MATCHES: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "NumericEquals": (_same_number, False),
    "StringEqualsIgnoreCase": (_equal_any_case, False),
    "StringLike": (like, False),
    "StringNotLike": (like, True),
    "ArnEquals": (like, False),
    "ArnLike": (like, False),
    "Bool": (_equal_any_case, False),
    "Null": (_equal, False),
}


def _many(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str | bool) else [str(one) for one in value]
