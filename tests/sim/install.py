"""Which names of the product point to the simulated computer and cloud while histories are played, and to what.

This is the whole list of what is replaced: the operating system's `os`, `fcntl`, `time` and `shutil` as the modules
see them, threads (one after the other), botocore's client, SSH and what runs on the machine, the signing of the
proof, and the list of other people's things before a launch, from which nothing follows. Everything else is the
product's own code, unchanged. `rfc8785` is replaced by an equal that is five times as
fast; a test holds the two together on every line that histories write.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import rfc8785

from provisioner import (
    baseline,
    closing,
    commands,
    drills,
    guards,
    interruption,
    journal,
    launching,
    lease,
    ledger,
    life,
    names,
    providers,
    reap,
    run,
    scope,
    watchdog,
)
from provisioner.model import Outcome
from provisioner.providers import aws_client, aws_look, aws_schedule
from provisioner.secret import Secret
from tests.sim.disk import SimFcntl, SimOs, SimPath, rmtree
from tests.sim.process import SimTime

CANARY = "CANARY-a-host-key-that-nobody-may-see"
NAP_S, POLL_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, WATCHDOG_S = 1e9, 30.0, 4.0, 60.0, 1800.0
"""How finely time is cut here, and how long a watchdog goes on: in the product naps of 50 ms, a look at the lock every half
second and at the cloud every half to 15 s, and six hours. What is decided by these times is the same; there is less of it."""


def _refuse(value: object) -> None:
    raise rfc8785.CanonicalizationError(f"{type(value).__name__} is no JSON")


class Canonical:
    """`rfc8785`, fast, for what a journal may hold: no floats, and names in the Basic Multilingual Plane."""

    CanonicalizationError = rfc8785.CanonicalizationError

    @staticmethod
    def dumps(value: Any) -> bytes:
        return "".join(_ENCODE(value, 0)).encode("utf-8")


_ENCODE = json.encoder.c_make_encoder(None, _refuse, json.encoder.encode_basestring, None, ":", ",", True, False, False)  # type: ignore[attr-defined,misc]


def _nothing(*args: object) -> None:
    """Without the first list there is no second one either."""


class OneByOne:
    """A pool of threads that has none."""

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __enter__(self) -> OneByOne:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Any:
        return Later(work, args)

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [work(item) for item in items]


class Later:
    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._work, self._args = work, args

    def result(self) -> Any:
        return self._work(*self._args)

    def cancel(self) -> None:
        pass


def _user_data(**said: Any) -> Secret:
    return Secret(f"{CANARY} deadline {said['deadline_epoch']} longest {said['max_run_s']}")


PAIR = SimpleNamespace(private="client_ed25519", public="ssh-ed25519 AAAA", private_text=lambda: CANARY)


def _seal(folder: Any, kept: Any, outcome: Any, code: Any) -> Any:
    kept.note("outcome", {"outcome": str(outcome), "exit": int(code)})
    kept.note("seal", {"files": {}})
    if kept.unwritten is not None:
        return closing.Sealed(None, f"the journal could not be written: {kept.unwritten}")
    return closing.Sealed(None, "not signed here")


class Session:
    """A login that has credentials."""

    @staticmethod
    def get_credentials() -> Any:
        return SimpleNamespace(get_frozen_credentials=lambda: None)

    full_config: dict[str, Any] = {}  # noqa: RUF012

    @staticmethod
    def get_config_variable(name: str) -> None:
        return None


class Stage:
    """What the patched names reach: the history that is being played."""

    connect: Callable[[str, Any], Any]
    client: Callable[[str, str], Any]
    on_machine: Callable[..., None]
    start_watchdog: Callable[..., int]


STAGE = Stage()


def _client(service: str, region: str, profile: str | None, endpoint: str | None, changes: bool) -> Any:
    return STAGE.client(service, region)


def _session(profile: str | None, rehearsed: bool) -> Any:
    return Session


_client.cache_clear = _session.cache_clear = lambda: None  # type: ignore[attr-defined]


def _names() -> list[tuple[Any, str, Any]]:
    keys = SimpleNamespace(client_pair=lambda folder: PAIR, read_pair=lambda folder, name: PAIR, host_pair=lambda folder, anew=False: PAIR)
    return [
        (journal, "os", SimOs),
        (names, "secrets", SimpleNamespace(token_bytes=bytes)),  # the same history, the same journal
        (names, "_keep", lambda path, row: None),  # openings are for people: no letting go reads one, and tests/core/test_names.py does
        (journal, "fcntl", SimFcntl),
        (journal, "time", SimTime),
        (journal, "rfc8785", Canonical),
        (journal, "_entry", lru_cache(30_000)(journal._entry)),  # a line says the same every time it is read
        (ledger, "os", SimOs),
        (ledger, "fcntl", SimFcntl),
        (ledger, "time", SimTime),
        (ledger, "shutil", SimpleNamespace(rmtree=rmtree)),
        (ledger, "root", lambda: SimPath("state")),
        (commands, "shutil", SimpleNamespace(rmtree=rmtree)),
        (lease, "LONGEST_PAUSE_S", LONGEST_PAUSE_S),
        (scope, "time", SimTime),
        (scope, "NAP_S", NAP_S),
        (scope.Scope.__init__, "__defaults__", (None, SimTime.time, scope.counting)),  # bound to the real clock when it was imported
        (life, "time", SimTime),
        (life, "NAP_S", NAP_S),
        (watchdog, "time", SimTime),
        (watchdog, "os", SimOs),
        (watchdog, "POLL_S", POLL_S),
        (watchdog, "PATIENCE_S", WATCHDOG_S),
        (watchdog, "start", lambda folder, overdue: STAGE.start_watchdog(folder, overdue)),
        (watchdog, "ended", lambda pid: None),
        (watchdog, "traceback", SimpleNamespace(print_exc=lambda: None)),
        (reap, "time", SimTime),
        (reap, "ThreadPoolExecutor", OneByOne),
        (reap, "side_by_side", OneByOne),
        (aws_look, "side_by_side", OneByOne),
        (lease.release, "__kwdefaults__", {**(lease.release.__kwdefaults__ or {}), "first_pause": FIRST_PAUSE_S}),
        (aws_schedule, "time", SimTime),
        (aws_client, "_client", _client),
        (aws_client, "_session", _session),
        (providers, "connect", lambda name, settings: STAGE.connect(name, settings)),
        (baseline, "take", _nothing),
        (closing, "_seal", _seal),
        (closing, "ended_by", lambda entries: Outcome.RECOVERED),
        (drills, "read", lambda: []),
        (launching, "keys", keys),
        (launching, "bootstrap", SimpleNamespace(user_data=_user_data)),
        (run, "on_machine", lambda *args: STAGE.on_machine(*args)),
    ]


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Inside, the product runs on simulated computers."""
    was = [(module, name, getattr(module, name)) for module, name, _ in _names()]
    for module, name, value in _names():
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in was:
            setattr(module, name, value)


__all__ = ["CANARY", "STAGE", "guards", "interruption", "simulated"]
