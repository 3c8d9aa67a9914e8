"""Which number does an answer give? Exact rationals, no floats.

The rule, one sentence: the first number after the last `####` or `\\boxed{`, if either is there; else the last number
in the text. Read as numbers: full-width digits, thousands separators ("1,234.5", a comma and exactly three digits),
a sign that stands before the digits and not between two things ("10-5" holds 10 and 5), a currency sign on either side
of it, "1e3", and a fraction "3/4" (not a date "3/4/2024"). "50%" is 50. Digits glued to a Latin letter before them
("H2O", "A1") are part of a name. When the text has no digits at all, number words up to 999 in English and numerals
up to 9999 in Chinese are read instead. Mixed fractions and decimal commas are not understood.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from fractions import Fraction

_CORE = re.compile(r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+", re.ASCII)
_EXPONENT = re.compile(r"[eE][-+]?[0-9]{1,2}(?![0-9A-Za-z])", re.ASCII)
_OVER = re.compile(r"/([0-9]{1,40})(?![0-9/]|\.[0-9])", re.ASCII)
_MINUS = str.maketrans("\u2212\u2013\u2014\u2012", "----")
_CURRENCY = "$€£¥₹"
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ENGLISH = {word: n for n, word in enumerate(_SMALL.split())}
_TENS = {word: 10 * n for n, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)}
_WORDS = re.compile(r"[a-z]+")
_CHINESE = {char: n for n, char in enumerate("零一二三四五六七八九")} | {"\u3007": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_NUMERALS = re.compile("[零\u3007一二两三四五六七八九十百千]+")


def exact(text: str) -> Fraction:
    """A number as an eval set writes it: "42", "-1.5", "3/4". Raises ValueError."""
    try:
        if len(text) <= 60 and re.fullmatch(r"-?[0-9]+/[0-9]+", text):
            return Fraction(text)
        value = Decimal(text)
    except (InvalidOperation, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a number") from None
    if len(text) > 60 or not value.is_finite() or abs(value.adjusted()) > 100:
        raise ValueError(f"{text[:60]!r} is not a number of reasonable size")
    return Fraction(value)


def answer(text: str) -> Fraction | None:
    """The number the text gives, by the rule above; None when there is none."""
    text = unicodedata.normalize("NFKC", text).translate(_MINUS)
    mark = max(text.rfind("####"), text.rfind("\\boxed{"))
    if mark >= 0 and (marked := _digits(text[mark:])):
        return marked[0]
    found = _digits(text)
    if not found:
        found = _words(text.casefold()) or _numerals(text)
    return found[-1] if found else None


def _digits(text: str) -> list[Fraction]:
    found: list[Fraction] = []
    at = 0
    while match := _CORE.search(text, at):
        at = match.end()
        before = text[: match.start()][-3:]
        if before[-1:].isascii() and before[-1:].isalpha():
            continue
        number = match[0].replace(",", "")
        if exponent := _EXPONENT.match(text, at):
            number, at = number + exponent[0], exponent.end()
        if len(number) > 60:
            continue
        value = Fraction(number)
        over = _OVER.match(text, at)
        if over and before[-1:] != "/" and int(over[1]) != 0:
            value, at = value / int(over[1]), over.end()
        found.append(-value if _negative(before) else value)
    return found


def _negative(before: str) -> bool:
    """`before` is up to three characters in front of the digits: is there a sign that belongs to them?"""
    before = before.rstrip(_CURRENCY)
    if not before.endswith("-"):
        return False
    neighbour = before[-2:-1]
    return not neighbour or not ((neighbour.isascii() and neighbour.isalnum()) or neighbour in ")]-/.")


def _words(text: str) -> list[Fraction]:
    found: list[Fraction] = []
    run: int | None = None
    may_add = 0  # the next word may add a number below this
    for word in _WORDS.findall(text):
        if run is not None and word == "hundred" and run < 10:
            run, may_add = run * 100, 100
        elif run is not None and word == "and" and may_add == 100:
            continue
        elif word in _TENS or word in _ENGLISH:
            value = _TENS.get(word, _ENGLISH.get(word, 0))
            if run is not None and 0 < value < may_add:
                run += value
            else:
                found += [] if run is None else [Fraction(run)]
                run = value
            may_add = 10 if word in _TENS else 0
        else:
            found += [] if run is None else [Fraction(run)]
            run, may_add = None, 0
    return found + ([] if run is None else [Fraction(run)])


def _numerals(text: str) -> list[Fraction]:
    found: list[Fraction] = []
    for match in _NUMERALS.finditer(text):
        total, digit = 0, None
        for char in match[0][:16]:
            if char in _UNITS:
                total, digit = total + (1 if digit is None else digit) * _UNITS[char], None
            else:
                digit = _CHINESE[char] if digit in (None, 0) else 10 * digit + _CHINESE[char]
        found.append(Fraction(total + (digit or 0)))
    return found
