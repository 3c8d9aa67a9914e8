"""Eval sets: named by their bytes, and every mistake told with its line and the nearest right word."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.errors import RefusedError, UsageError
from provisioner.evals import cases

GOOD: dict[str, Any] = {
    "id": "a-1",
    "tags": ["x"],
    "messages": [{"role": "user", "content": "6 x 7?"}],
    "checks": [{"type": "number", "value": "42"}],
    "gold": "42",
}


def complaints(*lines: Any, raw: bytes | None = None) -> list[str]:
    if raw is None:
        raw = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with pytest.raises(RefusedError) as refused:
        cases.parse(raw, "mine", "mine.jsonl")
    return refused.value.why.splitlines()


def check(**fields: Any) -> list[str]:
    return complaints({**GOOD, "checks": [fields]})


def test_the_shipped_set_is_what_its_digest_says() -> None:
    smoke = cases.load("smoke")
    assert smoke.public() == {"name": "smoke", "sha256": hashlib.sha256(smoke.raw).hexdigest(), "cases": 32}
    assert cases.names() == ["smoke"] or "smoke" in cases.names()
    tags = {tag for case in smoke.cases for tag in case.tags}
    assert {"extraction", "classification", "json", "arithmetic", "word-problem", "zh", "en", "choice", "refusal", "long-context"} <= tags
    assert {"counting", "yes-no", "ordering", "date", "translation"} <= tags


def test_a_file_is_read_by_its_path_and_unchanged_bytes_have_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n\r\n")
    one = cases.load(path)
    assert (one.name, one.sha256) == ("mine", hashlib.sha256(path.read_bytes()).hexdigest()) and cases.load(str(path)) == one
    assert one.cases[0].asked() == {"id": "a-1", "messages": GOOD["messages"]}


def test_a_set_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no eval set 'smoek'") as refused:
        cases.load("smoek")
    assert refused.value.why == 'did you mean "smoke"?'
    with pytest.raises(UsageError, match="No such file"):
        cases.load(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="there is no eval set"):
        cases.load("..")


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    found = complaints(GOOD, {**GOOD, "id": "A 1", "chekcs": []}, {**GOOD, "id": "b", "checks": [], "gold": 42}, GOOD)
    assert found == [
        "mine.jsonl:2: id: String should match pattern '^[a-z0-9][a-z0-9._-]{0,63}$'",
        'mine.jsonl:2: chekcs: not a key here; did you mean "checks"?',
        "mine.jsonl:3: checks: List should have at least 1 item after validation, not 0",
        "mine.jsonl:3: gold: Input should be a valid string",
        "mine.jsonl:4: the id 'a-1' is already used on line 1",
    ]


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"type": "number", "value": "42", "tolerence": "1"}, 'checks[0].tolerence: not a key here; did you mean "tolerance"?'),
        ({"type": "number", "value": "forty"}, "checks[0].value: 'forty' is not a number"),
        ({"type": "number", "value": 42}, "checks[0].value: Input should be a valid string"),
        ({"type": "number", "value": "1", "tolerance": "-1"}, "checks[0].tolerance: a tolerance below 0"),
        ({"type": "numbr", "value": "1"}, "checks[0]: 'numbr' is not a type of check; did you mean \"number\"?"),
        ({"value": "1"}, "checks[0]: '' is not a type of check (exact, contains, regex, number, choice, json_schema)"),
        ({"type": "exact"}, "checks[0]: give either value or any"),
        ({"type": "contains"}, "checks[0]: give value, any or none"),
        ({"type": "regex", "pattern": "(a)\\1"}, "checks[0].pattern: \\1 is not understood here: no backreferences"),
        ({"type": "choice", "options": ["a", "b"], "value": "c"}, "checks[0]: 'c' is not one of the options"),
        ({"type": "choice", "options": ["a", "b"], "value": "a", "aliases": {"a": ["B"]}}, "checks[0]: 'b' names two options"),
        ({"type": "json_schema",
        "schema": {"requird": []}}, 'checks[0].schema: schema.requird is not a keyword understood here; did you mean "required"?'),
        ({"type": "json_schema", "shema": {}}, 'checks[0].shema: not a key here; did you mean "schema"?'),
        ({"type": "exact", "value": "41"}, "gold fails its own exact check: the answer is '42'"),
    ],
)  # fmt: skip
def test_a_check_that_cannot_be_made_is_refused(fields: dict[str, Any], said: str) -> None:
    assert f"mine.jsonl:1: {said}" in check(**fields)


def test_a_wrong_key_in_a_message_names_the_nearest() -> None:
    assert complaints({**GOOD, "messages": [{"rol": "user", "content": "x"}]})[-1] == (
        'mine.jsonl:1: messages[0].rol: not a key here; did you mean "role"?'
    )


@pytest.mark.parametrize(
    "raw, said",
    [
        (b"", "mine.jsonl: no cases"),
        (b"\xef\xbb\xbf{}", "mine.jsonl:1: the file begins with a byte order mark: save it as UTF-8 without one"),
        (b'{"id":"\xff"}', "mine.jsonl:1: not UTF-8 at byte 8"),
        (b"{}\n{oops", "mine.jsonl:2: not JSON: Expecting property name enclosed in double quotes at character 2"),
        (b'{"id":"a","id":"b"}', "mine.jsonl:1: not JSON: the key 'id' is given twice"),
        (b"[" * 100_000, "mine.jsonl:1: not JSON: nested deeper than 40"),
        (b"[" * 60 + b"]" * 60, "mine.jsonl:1: not JSON: nested deeper than 40"),
        (b'"' + b"x" * (1 << 20) + b'"', "mine.jsonl:1: the line has 1048578 bytes; at most 1048576"),
        (b"3", "mine.jsonl:1: Input should be a valid dictionary or instance of Line"),
    ],
)
def test_what_is_no_set_says_where(raw: bytes, said: str) -> None:
    assert said in complaints(raw=raw)


def test_a_file_of_nothing_but_mistakes_is_not_read_to_the_end() -> None:
    found = complaints(*[{"id": f"c{i}"} for i in range(1000)])
    assert len(found) == 21 and found[-1] == "and perhaps more: reading stopped here"


def test_more_cases_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MAX_CASES", 2)
    assert complaints(*[{**GOOD, "id": f"c{i}"} for i in range(4)]) == ["mine.jsonl:3: more than 2 cases"]
    monkeypatch.setattr(cases, "MAX_BYTES", 10)
    with pytest.raises(RefusedError, match="is larger than"):
        cases.parse(b"x" * 11, "mine", "mine.jsonl")


@given(st.binary(max_size=80) | st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
       | st.dictionaries(st.sampled_from(["id",
       "messages", "checks", "gold", "type", "value", "role", "tags", "schema"]), inner, max_size=5))
       .map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=150)
def test_no_bytes_are_more_than_a_refusal(raw: bytes) -> None:
    try:
        cases.parse(raw, "mine", "mine.jsonl")
    except RefusedError as refused:
        assert refused.why


def test_reading_the_package_does_not_load_pydantic_or_asyncio() -> None:
    loads = "import sys, provisioner.evals.cases, provisioner.evals.stats, provisioner.evals.limits, provisioner.evals.local; "
    shows = "print([m for m in ('pydantic', 'asyncio', 'provisioner.evals.client') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loads + shows], capture_output=True, text=True, check=True).stdout == "[]\n"
