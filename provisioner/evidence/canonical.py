"""The one byte form of what we sign: RFC 8785 without floats, read strictly.

Python's own reader takes duplicate keys (the last wins), NaN, a byte order mark and `1.0`; each of them lets two
programs read two meanings out of one signed file. So what is read here must be, byte for byte, what we would write.

Times are handled as whole milliseconds since 1970, never as floats, because they end up in signed arithmetic. The
years are bounded, so that no arithmetic on a hostile file can leave the calendar.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import rfc8785

from provisioner.model import Json

INSTANT = re.compile(r"(2[01]\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?Z", re.ASCII)
DEPTH = 48
_LONGEST = len("2026-11-21T14:02:10.123456Z")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACKETS = re.compile(rb"[\[\]{}]")
_LONG = re.compile(rb"[:,\[]-?\d{16}")  # where a number is, in an object or a list; beyond 2^53 - 1 it has as many digits
_WRITE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Malformed(ValueError):
    """Not in the one allowed form; `offset` is the first byte that differs, when that can be said."""

    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why)
        self.offset = offset


def dumps(value: Json) -> bytes:
    """The canonical bytes. Raises ValueError on a float, on an integer beyond 2^53 - 1 and on a lone surrogate."""
    _no_floats(value)
    return _written(value)


def loads(raw: bytes) -> Json:
    """The value whose canonical bytes these are, or `Malformed`."""
    plain = raw[:1] in (b"{", b"[") and not _LONG.search(raw)
    if plain and raw.count(b"[") + raw.count(b"{") <= DEPTH:
        # The usual case, in half the time: what comes out as it went in has one meaning, for of two equal names one is kept.
        try:
            value: Json = _READ.decode(raw.decode("utf-8"))
            if _written(value) == raw:
                return value
        except (ValueError, RecursionError):
            pass  # said below, and where
    value = parse(raw, parse_float=_refuse)
    try:
        again = _written(value) if plain else rfc8785.dumps(value)
    except ValueError as e:
        raise Malformed(str(e) or "not canonical") from None
    if again != raw:
        offset = differs_at(again, raw)
        raise Malformed(f"not in canonical form at byte {offset}", offset)
    return value


def _written(value: Json) -> bytes:
    """RFC 8785 by the library, or by Python's own encoder where both write the same: that one is fifty times as fast.

    They differ in the order of names outside ASCII, in floats and in numbers beyond 2^53 - 1; the last two are not let here.
    """
    text = _WRITE.encode(value)
    return text.encode() if text.isascii() else rfc8785.dumps(value)


def parse(raw: bytes, *, parse_float: Callable[[str], Any] | None = None) -> Json:
    """Any JSON, in any spacing, as long as it has one meaning: no duplicate keys, no NaN, nothing nested absurdly."""
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _depth(raw) > DEPTH:
        raise Malformed("nested too deeply")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_float=parse_float, parse_constant=_refuse)
    except UnicodeDecodeError as e:
        raise Malformed("not UTF-8", e.start) from None
    except json.JSONDecodeError as e:
        raise Malformed(f"not JSON: {e.msg}", e.pos) from None
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except ValueError as e:
        raise Malformed(str(e) or "not JSON") from None


def _depth(raw: bytes) -> int:
    """How deeply brackets nest outside strings: asked of the bytes, before any recursive reader sees them."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def differs_at(a: bytes, b: bytes) -> int:
    """The first byte where two texts differ."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def milliseconds(text: object) -> int | None:
    """Milliseconds since 1970 of an RFC 3339 text with a Z, rounded down; None for anything else."""
    return _instant(text) if isinstance(text, str) and len(text) <= _LONGEST else None


@functools.lru_cache(maxsize=1 << 16)  # each time of a journal is asked for eight times
def _instant(text: str) -> int | None:
    match = INSTANT.fullmatch(text)
    if match is None:
        return None
    *fields, fraction = match.groups()
    try:
        whole = datetime(*map(int, fields), tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    return (whole - _EPOCH) // timedelta(milliseconds=1) + int((fraction or "0").ljust(3, "0")[:3])


def rfc3339(ms: int) -> str:
    """`2026-11-21T14:02:10.123Z`."""
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("a key is given twice")
    return made


def _refuse(text: str) -> NoReturn:
    raise Malformed(f"{text[:20]} is not a whole number")


def _no_floats(value: Json) -> None:
    match value:
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    raise TypeError(f"{name!r} is no name")
                _no_floats(item)
        case list() | tuple():
            for item in value:
                _no_floats(item)
        case float():
            raise TypeError(f"{value!r} is a float; nothing signed holds one")
        case int() if abs(value) >= 2**53:
            raise ValueError(f"{value} is beyond 2^53 - 1")
        case _:
            return


_READ = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)
