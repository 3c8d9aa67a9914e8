"""A text that nobody may see: an API key, a token, a private key, or a file that one of them stands in.

It cannot be shown by accident: `repr`, `str`, `format`, `%`, JSON, pickle and copying raise instead of giving it away, so a
log line, a traceback with locals or a journal entry that was handed one fails in a test and not in somebody's proof. The two
methods that give the text out are few enough in the code to be read through; each ends in a 0600 file, a private folder or
the one request that has to carry it.

It is not protected memory: whoever can read this process can read it.
"""

from __future__ import annotations

import hmac
import os
from typing import NoReturn

OF_THE_HUB = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
"""The model hub's token, where people keep it. It goes to the machine in a file; no program that is started here needs it."""


def environment() -> dict[str, str]:
    """What a program that is started here is given: all of ours but the hub's token. Logins to a cloud stay, for it may need them."""
    return {name: value for name, value in os.environ.items() if name not in OF_THE_HUB}


class Secret:
    """`Secret("…")`. False when empty; equal to a secret of the same text, compared in constant time."""

    __slots__ = ("_held",)

    def __init__(self, text: str | bytes) -> None:
        self._held = text.encode() if isinstance(text, str) else bytes(text)

    def reveal(self) -> str:
        """The text, for the one place that needs it."""
        return self._held.decode()

    def reveal_bytes(self) -> bytes:
        return self._held

    def hidden(self, text: str) -> str:
        """`text` without it."""
        return text.replace(self.reveal(), "[secret]") if self._held else text

    def __len__(self) -> int:
        return len(self._held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._held, other._held)

    def __hash__(self) -> int:
        return hash(Secret)  # a hash of the text would be something of it

    def _never(self, *_: object) -> NoReturn:
        raise TypeError("a secret is not shown, and not copied")

    __repr__ = __str__ = __format__ = __reduce__ = __reduce_ex__ = __getstate__ = __copy__ = __deepcopy__ = _never
