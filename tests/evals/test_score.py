"""Scores: what each check accepts and refuses, and that no text makes one fail, hang or guess."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.evals import cases, numbers, pattern, schema, score
from provisioner.evals.cases import Case
from tests.evals.made import sample

ANSWERS = json.loads((Path(__file__).parent / "smoke_answers.json").read_text(encoding="utf-8"))
SMOKE = {case.id: case for case in cases.load("smoke").cases}


def ok(text: str, **check: Any) -> bool:
    return score.check(text, check).ok


@pytest.mark.parametrize("id", SMOKE)
def test_each_smoke_case_accepts_good_answers_and_refuses_wrong_ones(id: str) -> None:
    case, answers = SMOKE[id], ANSWERS[id]
    assert len(answers["accepted"]) >= 1 and len(answers["rejected"]) >= 2
    right = {text: score.score(case, sample(text=text)).ok for text in answers["accepted"] + answers["rejected"]}
    assert right == dict.fromkeys(answers["accepted"], True) | dict.fromkeys(answers["rejected"], False)


def test_no_smoke_answer_is_right_for_many_cases() -> None:
    """A check so loose that another case's gold passes it measures nothing. Numbers and letters do meet by chance."""
    hits = {a: [b for b in SMOKE if b != a and score.score(SMOKE[b], sample(text=SMOKE[a].gold)).ok] for a in SMOKE}
    assert max(map(len, hits.values())) <= 1, hits
    assert set(ANSWERS) == set(SMOKE) and 28 <= len(SMOKE) <= 32


def test_an_error_is_wrong_and_counted_and_a_warm_up_is_neither() -> None:
    case = Case("a", (), ({"type": "contains", "value": "yes"}, {"type": "json_schema", "schema": {}}))
    got = score.scores([case], [sample(case="a", text="yes", error="timeout: no"), sample(case="a", warmup=True)])
    assert [(s.ok, [c.why for c in s.checks]) for s in got] == [(False, ["timeout: no"] * 2)]
    assert got[0].public()["checks"][1] == {"type": "json_schema", "ok": False, "why": "timeout: no", "json": False}


def test_a_sample_of_a_case_nobody_asked_for_is_wrong_and_no_crash() -> None:
    (got,) = score.scores([Case("a", (), ({"type": "contains", "value": "yes"},))], [sample(case="b", text="yes")])
    assert (got.case, got.ok, got.checks) == ("b", False, ())


@pytest.mark.parametrize(
    "text", ["Paris", " paris. ", "**Paris**", "“Paris”", "Ｐａｒｉｓ！", "`Paris`", "<think>Lyon?\n</think>\n\nParis", "(Paris)\n"]
)
def test_exact_looks_through_what_people_put_around_an_answer(text: str) -> None:
    assert ok(text, type="exact", any=["Lutetia", "Paris"])


@pytest.mark.parametrize("text", ["", "Paris, France", "Par is", "<think>Paris", "x" * 20000])
def test_exact_is_exact(text: str) -> None:
    assert not ok(text, type="exact", value="Paris")


def test_contains_finds_whole_words_and_refuses_what_must_not_be_there() -> None:
    assert ok("The cat sat.", type="contains", value="cat") and not ok("concatenate", type="contains", value="cat")
    assert ok("答案是北京。", type="contains", value="北京") and ok("是Paris吗", type="contains", value="paris")
    assert not ok("red and blue", type="contains", value="red", none=["blue"]) and ok("red", type="contains", none=["blue"])


NUMBERS = {
    "1,234.5": "1234.5", "１２": "12", "$42": "42", "42 apples": "42", "-7": "-7", "−7": "-7", "-$7": "-7", "$-7": "-7", "50%": "50",
    "10-5": "5", "10 - 5": "5", "= -5": "-5", "3/4": "3/4", "12/25/2024": "2024", "2024-03-15": "15", "1e3": "1000", "2.5E-1": "1/4",
    "H2O": None, "H2O at 7": "7", "1,2345": "2345", "1, 2, 3": "3", ".5": "1/2", "The answer is 42.": "42", "共42个": "42",
    "\\boxed{12} as 3 + 9": "12", "so\n#### 18\nhope it helps 100%": "18", "three": "3", "Forty-two apples": "42",
    "one hundred and five": "105",
    "twenty five": "25", "三百二十一": "321", "十七元": "17", "二〇二四": "2024", "两个": "2", "none": None,
    "": None, "1/0": "0", "x=5": "5",
    "(-3)": "-3", "5kg": "5", "9" * 80: None, "1.50": "3/2", "£1,000,000": "1000000", "a-5": "5", "one, two": "2",
}  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_the_number_of_an_answer(text: str) -> None:
    wanted = NUMBERS[text]
    assert numbers.answer(text) == (None if wanted is None else Fraction(Decimal(wanted)) if "/" not in wanted else Fraction(wanted))


@given(
    st.decimals(min_value=-(10**9), max_value=10**9, places=3, allow_nan=False),
    st.sampled_from(["{}", "It is {}.", "≈ {} km", "共{}个", "**{}**"]),
)
def test_any_decimal_is_read_back_exactly(value: Decimal, around: str) -> None:
    assert numbers.answer(around.format(value)) == numbers.answer(around.format(f"{value:,}")) == Fraction(value)
    assert ok(around.format(value), type="number", value=str(value + Decimal("0.001")), tolerance="0.001")
    assert not ok(around.format(value), type="number", value=str(value + Decimal("0.001")), tolerance="0.0009")


CHOICES = {
    "B": "B", "b": "B", "(B)": "B", "B) Paris": "B", "**B**": "B", "The answer is B.": "B", "Paris": "B", "答案是B。": "B", "Ｂ": "B",
    "A good question! The answer is B.": "B", "A": "A", "A or B": None, "a paris": "B",
    "B, because A is wrong": None, "": None, "Lyon": "A",
    "Let me think.\nA is Lyon.\nAnswer: B": "B", "ABBA": None, "Both": None, "B.\n\nA would be wrong.": "B", "A question": "A",
}  # fmt: skip


@pytest.mark.parametrize("text", CHOICES)
def test_a_choice_is_one_option_or_none(text: str) -> None:
    check = {"type": "choice", "options": ["A", "B"], "aliases": {"A": ["Lyon"], "B": ["Paris"]}}
    assert [value for value in "AB" if score.check(text, {**check, "value": value}).ok] == ([CHOICES[text]] if CHOICES[text] else [])


def test_a_longer_option_covers_the_shorter_one_in_it() -> None:
    check = {"type": "choice", "options": ["positive", "very positive"]}
    assert ok("It is very positive.", **check, value="very positive") and ok("Positive", **check, value="positive")
    assert not ok("very positive or just positive", **check, value="positive")


JSON_TEXTS = {
    '{"a": 1}': True, "```json\n{\"a\": 1}\n```": True, "Sure:\n```\n{\"a\":1}\n```\nDone.": True,
    "```{\"a\":1}```": True, '{"a": 1.0}': True,
    '{"a": true}': False, '{"a": "1"}': False, "{}": False, '{"a":1,"a":1}': False, '{"a": NaN}': False,
    'It is {"a": 1}': False, '{"a": 1} ok': False,
    "```\n{\"a\":1}\n```\n```\n{\"a\":1}\n```": False, "```json\n{\"a\":1}": False, "[" * 5000: False,
    '{"a": ' + "9" * 100 + "}": False, "": False,
    '{"a": 1, "b": []}': False, '{"a": 5}': False, "null": False,
}  # fmt: skip


@pytest.mark.parametrize("text", JSON_TEXTS)
def test_json_is_the_whole_answer_or_one_fenced_block(text: str) -> None:
    rules = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "maximum": 4}}, "additionalProperties": False}
    assert ok(text, type="json_schema", schema=rules) == JSON_TEXTS[text]


def test_whether_it_was_json_at_all_is_kept_apart() -> None:
    assert score.check('{"a": 2}', {"type": "json_schema", "schema": {"const": 1}}).json is True
    assert score.check("two", {"type": "json_schema", "schema": {"const": 2}}).json is False


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"]),
            "enum": st.lists(ANY_JSON, min_size=1, max_size=3),
            "minimum": st.integers(-3, 3),
            "exclusiveMaximum": st.integers(-3, 3),
            "minItems": st.integers(0, 2),
            "maxLength": st.integers(0, 2),
            "required": st.lists(st.sampled_from("ab"), unique=True),
            "additionalProperties": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries({"items": inner, "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2)}),
    max_leaves=4,
)


@given(ANY_JSON, SCHEMAS)
@settings(max_examples=300)
def test_the_validator_agrees_with_the_jsonschema_package(value: Any, rules: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert schema.complaint(rules) is None
    assert (schema.violation(value, rules) is None) == jsonschema.Draft202012Validator(rules).is_valid(value)


@pytest.mark.parametrize(
    "rules, said",
    [
        ({"typ": "object"}, 'schema.typ is not a keyword understood here; did you mean "type"?'),
        ({"properties": {"a": {"allOf": []}}}, "schema.properties.a.allOf is not a keyword"),
        ({"type": "dict"}, "'dict' is not a type"),
        ({"items": {"pattern": "(?=x)"}}, "schema.items.pattern: (?= is not understood"),
        ({"maximum": "4"}, "schema.maximum must be a number"),
        ({"required": "a"}, "must be a list"),
        ([], "schema must be an object"),
    ],
)
def test_a_keyword_that_would_not_be_checked_is_refused(rules: Any, said: str) -> None:
    assert said in (schema.complaint(rules) or "")


ATOMS = st.sampled_from(
    ["a", "b", "B", ".", "[ab]", "[^a]", "[a-c]", "\\d", "\\w", "\\s", "\\b", "\\B", "^", "1", "\\.", "(?:ab|b)", "(a|1)"]
)
PATTERNS = st.recursive(
    st.lists(ATOMS, min_size=1, max_size=4).map("".join),
    lambda inner: st.builds(
        lambda a, b, how: {"|": f"(?:{a}|{b})", "cat": a + b}.get(how, f"(?:{a}){how}{b}"),
        inner,
        inner,
        st.sampled_from(["|", "cat", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"]),
    ),
    max_leaves=4,
)


@given(PATTERNS, st.text("abAB1. \n", min_size=1, max_size=12))  # on an empty text re itself is wrong about \\B
@settings(max_examples=500)
def test_the_matcher_agrees_with_re_on_what_it_understands(text: str, subject: str) -> None:
    assert pattern.search(text, subject) == bool(re.search(text, subject, re.IGNORECASE))


@pytest.mark.parametrize("evil", ["(a+)+$", "(?:a|a)*b", "(?:a|aa)+$", "(?:x*)*y", "a*a*a*a*a*b", "(?:a?){60}a{60}", "(?:.*)*(?:.*)*z"])
def test_a_pattern_that_would_take_for_ever_does_not(evil: str) -> None:
    pattern.search(evil, "a" * 4000 + "!")  # milliseconds; with re: longer than the universe has been there


@pytest.mark.parametrize(
    "text, said",
    [("(?=a)", "lookaround"), ("(a)\\1", "backreferences"), ("a**", "repeat of a repeat"), ("(a", "never closed"), ("a)", "unmatched )"),
     ("[a", "ends too early"), ("[b-a]", "range"), ("*a", "nothing to repeat"), ("a{3,1}", "ends before"),
     ("a{x}", "count"), ("\\q", "not understood"),
     ("a" * 600, "600 characters; at most 512"), ("(?:a{99}){99}", "more than 1200 states"),
     ("(" * 40 + ")" * 40, "30 groups"), ("^*", "edge")],
)  # fmt: skip
def test_a_pattern_that_is_not_understood_says_what_and_where(text: str, said: str) -> None:
    with pytest.raises(pattern.PatternError, match=re.escape(said)):
        pattern.compile(text)


def test_no_pattern_is_more_than_an_error() -> None:
    @given(st.text("ab(|)[]{}*+?^$\\.-,:1 ", max_size=20), st.text("ab1 ", max_size=5))
    @settings(max_examples=500)
    def any_pattern(text: str, subject: str) -> None:
        try:
            pattern.search(text, subject)
        except pattern.PatternError as fault:
            assert str(fault)

    any_pattern()


CHECKS: list[dict[str, Any]] = [check for case in SMOKE.values() for check in map(dict, case.checks)] + [{"type": "exact", "value": "a"}]


@given(st.text() | st.text('AB0123456789,./-eE$<think>{}[]`"\n 一二十百'), st.sampled_from(CHECKS))
@settings(max_examples=400)
def test_no_text_is_more_than_wrong_and_the_score_is_the_same_twice(text: str, check: dict[str, Any]) -> None:
    first = score.check(text, check)
    assert first == score.check(text, check)
    assert first.ok or first.why
    json.dumps(first.public(), allow_nan=False)
