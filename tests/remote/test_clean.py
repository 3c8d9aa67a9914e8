"""No text from elsewhere may act on a terminal, forge a line, or hide a part of itself."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.clean import clean, clean_lines


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\x07x", "x"),
        ("\x9d52;c;aGk=\x9cx", "x"),
        ("\x1b[2J\x1b[H\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jx", "x"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("failed\rshutdown proof OK", "failed shutdown proof OK"),
        ("one\ntwo\u2028three\x85four", "one two three four"),
        ("a\bb\x7fc\x00d", "a?b?c?d"),
        ("user\u202eexe.txt", "user?exe.txt"),
        ("re\u200blea\u2066sed\ufeff", "re?lea?sed?"),
        ("\U000e0041\ud800", "??"),
        ("tab\there", "tab here"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("\x1bc", ""),
    ],
)
def test_what_a_terminal_would_act_on_is_gone(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


def test_an_unfinished_sequence_does_not_swallow_what_follows() -> None:
    assert clean("\x1b]0;the machine is still running") == "0;the machine is still running"


def test_a_sequence_inside_a_sequence_leaves_nothing_to_act_on() -> None:
    assert "\x1b" not in clean("\x1b\x1b[2J[2J\x1b\x1b]0;x\x07]0;y\x07")


@given(st.text(alphabet=st.characters()) | st.text(alphabet="\x1b[]\x9b\x9d\x07;0mJ\\\r\nA"))
def test_whatever_comes_in_one_visible_line_comes_out(text: str) -> None:
    shown = clean(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert len(shown.splitlines()) <= 1 and clean(shown) == shown


def test_a_megabyte_of_unfinished_sequences_takes_no_time() -> None:
    began = time.process_time()
    clean("\x1b]" * 300_000 + "\x1b[0" * 300_000)
    assert time.process_time() - began < 10


def test_lines_are_cleaned_one_by_one_and_only_the_last_are_kept() -> None:
    assert clean_lines("a\n\n\x1b[31mb\r\nc" + "x" * 600, last=2, limit=5) == ["b", "cxxx…"]
    assert clean("abcdef", limit=3) == "ab…"
