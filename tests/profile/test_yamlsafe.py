"""The closed part of YAML: what is text, what is refused, and on which line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.errors import RefusedError
from provisioner.yamlsafe import MAX_BYTES, Document, load, shown

REFUSED = [
    # (text, line, words of the complaint)
    ("", 1, "the file is empty"),
    ("# only a comment\n", 1, "the file is empty"),
    ("---\n", 1, "the document is empty"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins here; expected one document"),
    ("a:\n\tb: 1\n", 2, "indented with a tab; expected spaces"),
    ("a:\n  b: 1\n\tc: 2\n", 3, "indented with a tab"),
    ("\ufeffa: 1", 1, "byte-order mark"),
    (b"\xef\xbb\xbfa: 1", 1, "byte-order mark"),
    (b"\xff\xfea\x00:\x00", 1, "UTF-16; expected UTF-8"),
    (b"a: 1\nb: \xff\n", 2, "byte 0xff is not UTF-8"),
    ("a: 1\nb: x\x00y\n", 2, "a NUL character (U+0000)"),
    ("a: x\x1b[2J", 1, "a control character (U+001B)"),
    ("a: 1\nb: x\u2028y", 2, "a line separator (U+2028)"),
    ("a: x\u0085y", 1, "a control character (U+0085)"),
    ('a: 1\nb: "\\0"', 2, "a character that is not text (U+0000)"),
    ('a: "\\ud800"', 1, "a character that is not text (U+D800)"),
    ('"\\e": 1', 1, "(U+001B); expected a printable key"),
    ('a: "\\U00110000"', 1, "an escape or a number is out of range"),
    ("x: &a [1]\ny: *a\n", 1, "anchor &a; expected a plain value"),
    ("x: 1\ny: *a\n", 2, "alias *a; expected the value written out"),
    ("*a : 1", 1, "alias *a"),
    ("&a k: 1", 1, "anchor &a"),
    ("a: 1\nb:\n  <<: {c: 1}\n", 3, "merge key <<"),
    ("usd: 5\nname: x\nusd: 5000\n", 3, "key 'usd' is written again (first on line 1)"),
    ("a: {b: 1, b: 2}", 1, "key 'b' is written again"),
    ("1: a\n'1': b\n", 2, "key '1' is written again"),
    ("a: !!python/object/apply:os.system [ls]", 1, "tag !!python/object/apply:os.system; expected a plain value"),
    ("a: 1\nb: !secret x", 2, "tag !secret"),
    ("a: !<tag:example.org,2020:x> 1", 1, "tag !<tag:example.org,2020:x>"),
    ("a: !!binary aGk=", 1, "tag !!binary"),
    ("!!set {a}", 1, "tag !!set"),
    ("a: !!int many", 1, "!!int 'many'; expected a value that is a YAML int"),
    ("usd: .inf", 1, ".inf is not a quantity; expected a finite number"),
    ("a: 1\nusd: -.Inf", 2, "-.Inf is not a quantity"),
    ("usd: .nan", 1, ".nan is not a quantity"),
    ("a: 1234567890123456789", 1, "a number of 19 digits; expected at most 18"),
    ("? [a]\n: 1", 1, "a mapping or list is used as a key"),
    ("a: 1\n~: 1", 2, "an empty key"),
    (": 1", 1, "expected a word before the colon"),
    ("a: b: c", 1, "mapping values are not allowed here; expected quotes around a text that contains ': '"),
    ("a: 1\n b: 2", 2, "mapping values are not allowed here"),
    ("a: 1\nb: [1, 2\n", 3, "(in what begins on line 2); expected a closing bracket"),
    ('a: 1\nb: "x\n', 3, "(in what begins on line 2); expected a closing quote"),
    ("a: @x", 1, "expected quotes around a text that begins with @"),
    ("a: %x", 1, "expected quotes around a text that begins with %"),
    ("- a\nb: 1", 2, "the same indentation for all keys"),
    ("[" * 21 + "]" * 21, 1, "nested more than 20 deep"),
    ("x" * (MAX_BYTES + 1), 1, f"{MAX_BYTES + 1} bytes; expected at most {MAX_BYTES}"),
    ("é" * (MAX_BYTES // 2 + 1), 1, f"{MAX_BYTES + 2} bytes"),
    ("%YAML 1." + "9" * 5000 + "\n---\na: 1", 1, "out of range"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED, ids=lambda value: repr(value)[:40] if not isinstance(value, int) else "")
def test_what_could_be_misread_is_refused_with_its_line(text: str | bytes, line: int, words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        load(text, "dir/f.yaml")
    assert caught.value.what.startswith(f"dir/f.yaml:{line}: "), caught.value.what
    assert words in caught.value.what
    assert caught.value.what.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "Y",
        "010",
        "0o17",
        "0x1F",
        "1_000",
        "1:30:00",
        "2026-11-21",
        "0.92",
        "1e6",
        "1.",
        "=",
        "+.5",
        "NULL!",
        "1.00",
    ],
)
def test_a_trap_of_yaml_stays_the_text_that_was_written(text: str) -> None:
    assert load(f"a: {text}", "f").data == {"a": text}


def test_only_plain_integers_true_false_and_null_become_something_else() -> None:
    text = "a: 5\nb: -3\nc: +7\nd: true\ne: False\nf: null\ng: ~\nh:\ni: '5'\nj: \"true\"\nk: !!str 5\nl: !!float 1.50\nm: ! 7\nn: 0"
    wanted = dict(a=5, b=-3, c=7, d=True, e=False, f=None, g=None, h=None, i="5", j="true", k="5", l="1.50", m="7", n=0)
    assert load(text, "f").data == wanted


def test_keys_are_always_text() -> None:
    assert load("1: a\nno: b\ntrue: c\n1.5: d", "f").data == {"1": "a", "no": "b", "true": "c", "1.5": "d"}


def test_every_key_and_item_knows_its_line() -> None:
    document = load("# note\na: 1\nb:\n  - x\n  - c: 1\n    d:\n      e: |\n        text\n        more\n      f: 2\n", "f.yaml")
    lines = {
        path: document.line(path) for path in [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c"), ("b", 1, "d", "e"), ("b", 1, "d", "f")]
    }
    assert list(lines.values()) == [2, 3, 4, 5, 5, 7, 10]


def test_a_path_that_is_not_written_has_the_line_of_what_would_hold_it() -> None:
    document = load("a:\n  b:\n    c: 1\n", "f.yaml")
    assert document.line(("a", "b", "nowhere", 3)) == 2
    assert document.where(("elsewhere",)) == "f.yaml:1"


def test_lines_are_the_editors_with_every_kind_of_line_end() -> None:
    assert [load(f"a: 1{end}b: 2{end}c: 3{end}", "f").line(("c",)) for end in ("\n", "\r\n", "\r")] == [3, 3, 3]


def test_twenty_levels_are_allowed() -> None:
    assert load("[" * 20 + "]" * 20, "f").data is not None


def test_the_text_is_kept_as_it_was() -> None:
    text = "a: 1   # one\n\n"
    assert load(text.encode(), "f").text == text
    assert "one" not in repr(load(text, "f"))


@pytest.mark.parametrize(
    "bomb",
    ["[" * 60000, "{" * 60000, "{a: " * 15000, "- " * 30000, "a: &a [" * 9000, "? " * 30000, "[a, " * 16000, "!" * 60000, '"\\\n' * 20000],
)
def test_a_hostile_file_is_refused_at_once(bomb: str) -> None:
    start = time.process_time()
    with pytest.raises(RefusedError):
        load(bomb, "f")
    assert time.process_time() - start < 1.5


YAMLISH = st.text(alphabet="a: [{1}]\n-&*!|>'\"%@`?#,\\ \tz~<.x0Uu\r\u00e9\U0001f600", max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.one_of(YAMLISH, st.text(max_size=60), st.binary(max_size=60)))
def test_whatever_the_bytes_it_is_data_or_a_refusal(text: str | bytes) -> None:
    try:
        assert isinstance(load(text, "f"), Document)
    except RefusedError as error:
        assert error.what.startswith("f:") and error.what.isprintable()


def test_a_quoted_value_is_short_and_harmless() -> None:
    assert shown("x" * 500) == repr("x" * 60 + "…")
    assert "\x1b" not in shown("\x1b[2J") and "\u202e" not in shown("\u202e")
    assert [shown(value) for value in (True, None, {}, [], 5)] == ["true", "nothing", "a mapping", "a list", "5"]
