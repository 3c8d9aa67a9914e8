"""Reading and writing what systemd writes: unit files, time spans, calendar instants, tables.

Pure functions only, so that each is tested from text. The subset is what our guards and servers use; what real
systemd would refuse is refused here too (a calendar line it cannot read, a section without `=`), because a
rehearsal that accepts more than the real thing hides the failure until it costs money.

Times of day are UTC, as on an EC2 machine. Must not know about processes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

SPAN_UNITS = {
    "us": 1e-6,
    "usec": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
    "weeks": 604800.0,
}
_SPAN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")
_INSTANT = re.compile(r"(?:[A-Z][a-z]{2},?\s+)?(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?(?:\s+(?:UTC|Etc/UTC))?$")
_YES = frozenset({"1", "yes", "y", "true", "t", "on"})


class BadUnit(ValueError):
    """What real systemd would refuse, in its words where we know them."""


@dataclass
class UnitFile:
    """Sections, each a list of (key, value) in the order of the file: many keys may stand more than once."""

    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def all(self, section: str, key: str) -> list[str]:
        values: list[str] = []
        for k, v in self.sections.get(section, ()):
            if k == key:
                values = [*values, v] if v else []  # an empty assignment resets the list
        return values

    def last(self, section: str, key: str, default: str = "") -> str:
        values = self.all(section, key)
        return values[-1] if values else default

    def yes(self, section: str, key: str, default: bool = False) -> bool:
        value = self.last(section, key)
        return value.lower() in _YES if value else default

    def span(self, section: str, key: str, default: float) -> float:
        value = self.last(section, key)
        return parse_span(value) if value else default

    def add(self, section: str, key: str, value: str) -> None:
        self.sections.setdefault(section, []).append((key, value))

    def text(self) -> str:
        return "\n".join(f"[{name}]\n" + "".join(f"{k}={v}\n" for k, v in pairs) for name, pairs in self.sections.items())


def parse_unit(text: str) -> UnitFile:
    unit = UnitFile()
    section = ""
    pending = ""
    for raw in text.splitlines():
        if not pending and (not raw.strip() or raw.lstrip()[0] in "#;"):
            continue
        if pending and raw.lstrip()[:1] in ("#", ";"):
            continue
        line = pending + raw.strip()
        if line.endswith("\\"):
            pending = line[:-1] + " "
            continue
        pending = ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            unit.sections.setdefault(section, [])
        elif "=" in line and section:
            key, _, value = line.partition("=")
            unit.add(section, key.strip(), value.strip())
        else:
            raise BadUnit(f"Missing '=' or section header: {line[:80]!r}")
    return unit


def parse_span(text: str) -> float:
    """Seconds in a systemd time span: "30", "1min 30s", "500ms", "infinity"."""
    text = text.strip().lower()
    if text == "infinity":
        return float("inf")
    total, at = 0.0, 0
    while at < len(text):
        m = _SPAN.match(text, at)
        if m is None or m.end() == at or m[2] not in SPAN_UNITS:
            raise BadUnit(f"Failed to parse time span: {text}")
        total += float(m[1]) * SPAN_UNITS[m[2]]
        at = m.end()
    if not text:
        raise BadUnit("Failed to parse time span: empty")
    return total


def parse_calendar(text: str) -> float:
    """Seconds since 1970 of one absolute instant. Repeating expressions are not part of the rehearsal."""
    m = _INSTANT.match(text.strip())
    if m is None:
        raise BadUnit(f"Failed to parse calendar specification, ignoring: {text}")
    year, month, day, hour, minute, second = (int(x or 0) for x in m.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        raise BadUnit(f"Failed to parse calendar specification, ignoring: {text}") from None


def parse_environment(values: Iterable[str]) -> dict[str, str]:
    """`Environment=` lines: quoted words, each NAME=value."""
    env: dict[str, str] = {}
    for value in values:
        for word in shlex.split(value):
            name, equals, rest = word.partition("=")
            if equals:
                env[name] = rest
    return env


def parse_env_file(text: str) -> dict[str, str]:
    env: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;" or "=" not in line:
            continue
        name, _, value = line.partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        env[name.strip()] = value
    return env


def parse_command(line: str, env: Mapping[str, str], unit: str) -> tuple[list[str], bool]:
    """An `ExecStart=` line as argv, and whether a failure is to be ignored ("-" before the path)."""
    line = line.strip()
    prefix = line[: len(line) - len(line.lstrip("@-:+!"))]
    try:
        words = shlex.split(line[len(prefix) :])
    except ValueError as e:
        raise BadUnit(f"Unbalanced quoting: {e}") from None
    if not words:
        raise BadUnit("ExecStart= is empty")
    stem = unit.rpartition(".")[0]
    given = {"%": "%", "n": unit, "N": stem, "p": stem.partition("@")[0], "i": stem.partition("@")[2], "t": "/run", "h": "/root"}
    out: list[str] = []
    for number, word in enumerate(words):
        word = re.sub(r"%(.)", lambda m: given.get(m[1], m[0]), word)
        if number and ":" not in prefix:
            whole = re.fullmatch(r"\$([A-Za-z_]\w*)", word)
            if whole:  # "$X" alone is split into words
                out += env.get(whole[1], "").split()
                continue
            word = re.sub(r"\$\{([A-Za-z_]\w*)\}", lambda m: env.get(m[1], ""), word).replace("$$", "$")
        out.append(word)
    return out, "-" in prefix


def show_instant(at: float | None) -> str:
    """As `systemctl show` writes a time stamp; nothing when there is none."""
    if at is None or at == float("inf"):
        return ""
    return datetime.fromtimestamp(at, UTC).strftime("%a %Y-%m-%d %H:%M:%S UTC")


def show_span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds == float("inf"):
        return "infinity"
    micros = round(seconds * 1_000_000)
    if micros <= 0:
        return "0"
    out: list[str] = []
    for name, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000)):
        count, micros = divmod(micros, size)
        if count:
            out.append(f"{count}{name}")
    if micros >= 1_000_000:
        out.append(f"{micros / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s")
    elif micros >= 1000:
        out.append(f"{micros / 1000:.3f}".rstrip("0").rstrip(".") + "ms")
    elif micros:
        out.append(f"{micros}us")
    return " ".join(out)


def columns(rows: list[list[str]]) -> str:
    """Rows padded as systemctl's tables are; no rows give nothing."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(" ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
