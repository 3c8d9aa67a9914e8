"""A cancel token for blocking code, and the clock everything else is told the time by.

Signals never raise here: they set the scope, and every wait in the program is `scope.sleep`, which raises
`Cancelled`. So no call to a provider is ever cut in half by Ctrl-C, and no `finally` can be entered half-way.
Release runs on a clock instead of a scope: there is nothing a signal could reach.

A deadline is kept twice, on the wall clock and on the clock that goes on counting while a laptop sleeps; whichever
comes first ends the run. A wall clock set back an hour must not buy the run an hour.

This file must not know what is being waited for.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

NAP_S = 0.05


class Cancelled(Exception):
    """The run was told to stop: `reason` is a signal's name, or "deadline"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def unbreakable(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Telling the story must not be able to end it."""

    def told(text: str) -> None:
        with contextlib.suppress(Exception):
            tell(text)

    return told


class SystemClock:
    """Real time."""

    def now(self) -> float:
        return time.time()

    def counting(self) -> float:
        return counting()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def counting() -> float:
    """Seconds on a clock that no one sets and that counts through suspend where the system has one (Linux)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Scope:
    """Cancelled by a signal, by its deadline (seconds since 1970), or by `cancel`; the first reason stays."""

    def __init__(self, deadline: float | None = None, now: Callable[[], float] = time.time, twin: Callable[[], float] = counting) -> None:
        self._now, self._twin = now, twin
        self.deadline: float | None = None
        self._twin_deadline: float | None = None
        self._over = False
        self.reason: str | None = None
        if deadline is not None:
            self.limit(deadline)

    def limit(self, deadline: float) -> None:
        """Set the deadline, once it is known (seconds since 1970)."""
        self.deadline, self._twin_deadline = deadline, self._twin() + deadline - self._now()

    def cancel(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._over = True  # a plain flag: this is called by signal handlers, and see `sleep`

    def left(self) -> float | None:
        """Seconds until the deadline, by whichever clock is nearer to it; None without one."""
        if self.deadline is None or self._twin_deadline is None:
            return None
        return min(self.deadline - self._now(), self._twin_deadline - self._twin())

    def check(self) -> None:
        left = self.left()
        if left is not None and left <= 0:
            self.cancel("deadline")
        if self._over:
            raise Cancelled(self.reason or "cancelled")

    def sleep(self, seconds: float) -> None:
        # Naps, not threading.Event: a signal that arrives while `Event.wait` holds the event's lock waits for that lock
        # in `Event.set`, on the same thread, for ever. A nap also notices a deadline that passed while the laptop slept.
        end = time.monotonic() + seconds
        self.check()
        while (rest := end - time.monotonic()) > 0:
            time.sleep(min(rest, NAP_S))
            self.check()


@contextlib.contextmanager
def signals(scope: Scope, say: Callable[[str], None]) -> Iterator[None]:
    """Route SIGINT, SIGTERM and SIGHUP to the scope; a repeat only tells where things stand. `nohup` is respected."""

    def hear(number: int, _frame: object) -> None:
        name, again = signal.Signals(number).name, scope.reason is not None
        scope.cancel(name)  # before a word is said: a second signal may come between
        with contextlib.suppress(OSError, ValueError):  # after SIGHUP there may be no terminal left to write to
            say(f"{name} again" if again else name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    old = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def side_by_side(most: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that only ask. Where a signal raises (see `terminal`), no more is asked and nobody waits for an answer."""
    from concurrent.futures import ThreadPoolExecutor

    threads, stopped = ThreadPoolExecutor(most, thread_name_prefix=name), False
    try:
        yield threads
    except KeyboardInterrupt:
        stopped = True
        raise
    finally:
        threads.shutdown(wait=not stopped, cancel_futures=stopped)


def cry(text: str) -> None:
    """Write to stderr in one piece, from a signal handler too, without the interpreter's buffers and locks."""
    if not takes(2):
        return
    with contextlib.suppress(OSError):
        os.write(2, (text + "\n").encode("utf-8", "replace"))


def takes(fd: int, within: float = 0.2) -> bool:
    """Will a line be taken? A terminal that was stopped with Ctrl-S takes none, and nobody waits for it: letting go does not."""
    try:
        return bool(select.select([], [fd], [], within)[1])
    except (OSError, ValueError):
        return True  # closed or odd: the write itself says so
