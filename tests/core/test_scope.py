"""The scope: one flag that every wait looks at, by two clocks, set by signals that never raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from provisioner.scope import Cancelled, Scope, cry, signals


def test_the_deadline_ends_a_sleep() -> None:
    began = time.monotonic()
    with pytest.raises(Cancelled) as why:
        Scope(time.time() + 0.15).sleep(60)
    assert why.value.reason == "deadline" and time.monotonic() - began < 30


@pytest.mark.parametrize("clock", ["wall", "twin"])
def test_either_clock_ends_it(clock: str) -> None:
    at = {"wall": 1000.0, "twin": 50.0}
    scope = Scope(1100.0, lambda: at["wall"], lambda: at["twin"])
    scope.check()
    at[clock] += 101
    with pytest.raises(Cancelled):
        scope.check()


def test_a_wall_clock_set_back_buys_no_time() -> None:
    at = {"wall": 1000.0, "twin": 50.0}
    scope = Scope(1100.0, lambda: at["wall"], lambda: at["twin"])
    at["wall"] -= 3600
    at["twin"] += 90
    assert scope.left() == pytest.approx(10)


def test_a_deadline_that_passes_during_a_sleep_is_noticed_there() -> None:
    """A laptop that slept: the long sleep was begun before, and the clocks have moved on."""
    at = {"now": 1000.0}
    scope = Scope(1100.0, lambda: at["now"], lambda: at["now"])
    threading.Timer(0.1, lambda: at.update(now=2000.0)).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        scope.sleep(60)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_wakes_a_sleep(number: signal.Signals) -> None:
    scope, said = Scope(), list[str]()
    with signals(scope, said.append):
        threading.Timer(0.1, lambda: os.kill(os.getpid(), number)).start()
        began = time.monotonic()
        with pytest.raises(Cancelled) as why:
            scope.sleep(60)
    assert why.value.reason == number.name and said == [number.name]
    assert time.monotonic() - began < 30


def test_every_thread_that_sleeps_on_it_is_woken() -> None:
    scope, ended = Scope(), list[str]()

    def work() -> None:
        try:
            scope.sleep(60)
        except Cancelled as e:
            ended.append(e.reason)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    scope.cancel("SIGINT")
    for thread in threads:
        thread.join(30)
    assert ended == ["SIGINT"] * 5


def test_the_first_reason_stays() -> None:
    scope = Scope()
    scope.cancel("SIGINT")
    scope.cancel("SIGTERM")
    with pytest.raises(Cancelled) as why:
        scope.check()
    assert why.value.reason == "SIGINT"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file")], ids=repr)
def test_a_signal_never_raises_where_there_is_nobody_left_to_tell(error: Exception) -> None:
    def gone(text: str) -> None:
        raise error

    scope = Scope()
    with signals(scope, gone):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
    assert scope.reason == "SIGHUP"


def test_crying_to_a_closed_terminal_is_silent() -> None:
    program = "from provisioner.scope import cry; import os; os.close(2); cry('x'); os._exit(7)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 7
    cry("")


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals(Scope(), str):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


HAMMER = """
    import random, signal, time
    from provisioner.scope import Cancelled, Scope
    def hear(number, frame):
        scope.cancel("SIGALRM")
    signal.signal(signal.SIGALRM, hear)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        scope = Scope()
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 6e-5))
        try:
            while True:
                scope.sleep(1e-6)
        except Cancelled:
            pass
    print("alive")
"""


def test_no_instant_of_a_sleep_is_a_bad_one_for_a_signal() -> None:
    """With threading.Event this hangs within a second: the handler waits for a lock that the sleeper holds."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(HAMMER)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "alive\n", done.stderr
