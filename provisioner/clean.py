"""Text from elsewhere, made safe to show: a terminal, a log line or a report may print what `clean` returns.

Everything a machine, a model or a cloud says is hostile: it may hold escape sequences that move the cursor over an
honest line, set the clipboard, or forge a second line; characters that reorder or hide what is read; or half a
character. Known terminal sequences are dropped whole; whatever else cannot be seen becomes a question mark, so that
a reader notices that something was there. An unfinished sequence loses only its introducer: its text stays visible,
because a string that swallowed the rest of a message would be a way to hide it.

`clean` keeps one line one line. It must not know where the text comes from or where it goes.
"""

from __future__ import annotations

import re
import unicodedata

# ESC [ … (CSI), and ESC ] P ^ _ X … up to BEL or ST (OSC, DCS, PM, APC, SOS), in their 7-bit and 8-bit forms. Each is
# bounded so that a long unfinished one costs linear time.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]"
    r"|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c\x9d\x90\x9e\x9f\x98]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[\]P^_X\[]"
    r"|\x1b[ -/]{0,4}[0-~]"
)
_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f")  # letters by category, nothing to the eye


def clean(text: str, *, limit: int | None = None) -> str:
    """One harmless line. With `limit`, at most that many characters, the last of them an ellipsis if it was cut."""
    plain = text.isascii() and text.isprintable()  # which most is: only blank to tilde is both
    shown = text if plain else "".join(map(_show, _SEQUENCES.sub("", text)))
    return shown if limit is None or len(shown) <= limit else shown[: max(0, limit - 1)] + "…"


def clean_lines(text: str, *, last: int | None = None, limit: int | None = 500) -> list[str]:
    """The lines of a longer text, each cleaned, without empty ones; with `last`, only so many from its end."""
    lines = [line for raw in re.split(r"\r\n|\n|\r", text) if (line := clean(raw, limit=limit).strip())]
    return lines if last is None else lines[-last:] if last else []


def _show(char: str) -> str:
    if " " <= char <= "~":
        return char
    if char in _BREAKS:
        return " "
    return "?" if char in _BLANKS or unicodedata.category(char) in _HIDDEN else char
