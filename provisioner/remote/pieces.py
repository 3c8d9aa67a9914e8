"""What a remote command prints, taken in pieces and bounded: `Capped` keeps the first part, `Lines` hands out lines.

A hostile machine can send for ever, and never end a line. Both classes hold at most their limit in memory, go on
taking (so that the command can end) and leave a mark where something was cut. Pure; must not know about SSH.
"""

from __future__ import annotations

from collections.abc import Callable


class Capped:
    """The first `limit` bytes, and how many more came."""

    def __init__(self, limit: int) -> None:
        self.limit, self.data, self.cut = limit, bytearray(), 0

    def add(self, piece: bytes) -> None:
        room = max(0, self.limit - len(self.data))
        self.data += piece[:room]
        self.cut += max(0, len(piece) - room)

    def text(self) -> str:
        mark = f"\n[cut here: {self.cut} more bytes]" if self.cut else ""
        return self.data.decode("utf-8", "replace") + mark


class Lines:
    """Calls `on_line` for every line without its newline; `end()` hands over the last one if it had none."""

    def __init__(self, on_line: Callable[[str], None], limit: int) -> None:
        self._on_line, self._limit = on_line, limit
        self._part = Capped(limit)

    def add(self, piece: bytes) -> None:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            self._part.add(line)
            self._hand_over()
        self._part.add(rest)

    def end(self) -> None:
        if self._part.data or self._part.cut:
            self._hand_over()

    def _hand_over(self) -> None:
        part, self._part = self._part, Capped(self._limit)
        mark = f" [line cut here: {part.cut} more bytes]" if part.cut else ""
        self._on_line(part.data.decode("utf-8", "replace") + mark)
