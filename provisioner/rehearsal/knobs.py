"""What a person may set about the cloud itself, in one value: how slow it is, how much there is, what it costs.

A knob is an entry of the fault plan that is about no request: `{"timing": {...}}`, `{"limits": {...}}` and so on. `World` is all
of them together, frozen and replaced as a whole, so that a request sees one state of it. Everything is checked when it
is set: a rehearsal of something that nobody understood would be worse than none.

It must not know requests, machines or moto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from provisioner.rehearsal.limits import Limits
from provisioner.rehearsal.market import Market
from provisioner.rehearsal.throttle import Rate, rates

REASONS = ("price", "no-capacity")


@dataclass(frozen=True)
class Timing:
    """How long this cloud takes, in seconds."""

    pending_s: float = 0.6  # asked for -> running
    stopping_s: float = 0.8  # asked to stop or terminate -> stopped or terminated
    vanish_s: float = 3600.0  # terminated -> no longer listed
    tags_s: float = 3600.0  # terminated -> its tags are gone
    stale_s: float = 0.0  # how long a listing may still tell the state before the last change
    listing_s: float = 0.0  # made -> listed; until then describing it by id answers NotFound
    fleet_s: float = 0.3  # a fleet asked for -> its machines
    fleet_late_s: float = 0.0  # how much later than it was asked to a fleet ends, and says that it will
    tunnel_s: float = 3600.0  # how long a connection through an Instance Connect endpoint lasts
    kill_grace_s: float = 0.5  # SIGTERM -> SIGKILL for a machine's processes, never longer than stopping_s


@dataclass(frozen=True)
class Interruption:
    """EC2 wants spot machines back: which, when, and how long before it takes them it says so."""

    interrupt_after_s: float | None = None  # running -> notice
    interrupt_after_requests: int | None = None  # answers of its server -> notice
    notice_s: float = 120.0  # notice -> shutting-down
    reason: str = "no-capacity"
    type: str = "*"  # only machines of this type; a pattern
    times: int | None = 1  # how many machines; None: every one


@dataclass(frozen=True)
class Stuck:
    """Machines that stay shutting-down: until the knob is taken away, they are forced, or after `for_s`."""

    type: str = "*"  # only machines of this type; a pattern
    times: int | None = 1  # how many machines; None: every one
    for_s: float | None = None


@dataclass(frozen=True)
class World:
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    market: Market = field(default_factory=Market)
    spot: Interruption | None = None
    stuck: Stuck | None = None
    throttle: tuple[Rate, ...] = ()
    connect_endpoints: Mapping[str, str] = field(default_factory=dict)  # region -> state of the one there
    session_manager: bool = False  # are machines managed nodes, as an account's default host management makes them?
    fleet_role: bool = True  # is there the service-linked role that EC2 Fleet acts with?
    fleets_persist: bool = False  # does a fleet of type request fill itself again, and try again what it could not have?
    page_size: int | None = None  # how much of a list comes at once though nobody asked for pages

    def changed(self, entry: Mapping[str, Any]) -> World:
        """The world with what the entry says. ValueError when it is not understood."""
        if unknown := sorted(set(entry) - KNOBS - {"host"}):
            raise ValueError(f"an entry about the cloud or its machines has no {', '.join(unknown)}")
        for name in sorted(KNOBS & set(entry)):
            if not isinstance(entry[name], Mapping) and not (name in _NOT_OBJECTS or (name in _OFF and entry[name] is None)):
                raise ValueError(f"{name} is {entry[name]!r}; it must be an object")
        market = self.market.with_room(entry.get("capacity", {}), spot=False)
        market = market.with_room(entry.get("spot_capacity", {}), spot=True).with_prices(entry.get("spot_price_usd", {}))
        return replace(
            self,
            timing=_timing(self.timing, entry.get("timing", {})),
            limits=self.limits.changed(entry.get("limits", {})),
            market=market,
            spot=_interruption(entry["spot"]) if "spot" in entry else self.spot,
            stuck=_stuck(entry["stuck"]) if "stuck" in entry else self.stuck,
            throttle=rates(entry["throttle"] or {}) if "throttle" in entry else self.throttle,
            connect_endpoints=_endpoints(self.connect_endpoints, entry.get("connect_endpoints", {})),
            page_size=_count("page_size", entry["page_size"]) if "page_size" in entry else self.page_size,
            **{name: _flag(name, entry[name]) for name in _FLAGS if name in entry},
        )


_OFF = frozenset({"spot", "stuck", "throttle"})  # null takes them away
_FLAGS = frozenset({"fleet_role", "fleets_persist", "session_manager"})
KNOBS = _OFF | _FLAGS | {"timing", "limits", "capacity", "spot_capacity", "spot_price_usd", "connect_endpoints", "page_size"}
_NOT_OBJECTS = _FLAGS | {"page_size"}


def _timing(before: Timing, given: Mapping[str, Any]) -> Timing:
    _known("timing", Timing, given)
    return replace(before, **{name: float(value) for name, value in given.items()})


def _interruption(given: Mapping[str, Any] | None) -> Interruption | None:
    if given is None:
        return None
    _known("spot", Interruption, given)
    found = Interruption(**given)
    if (found.interrupt_after_s is None) == (found.interrupt_after_requests is None):
        raise ValueError("spot needs interrupt_after_s or interrupt_after_requests, one of them")
    for name in ("interrupt_after_s", "interrupt_after_requests", "notice_s", "times"):
        value = getattr(found, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise ValueError(f"spot: {name} is {value!r}; it must be a number")
    if found.reason not in REASONS:
        raise ValueError(f"spot: reason is {found.reason!r}; it must be one of {', '.join(REASONS)}")
    return found


def _stuck(given: Mapping[str, Any] | None) -> Stuck | None:
    if given is None:
        return None
    _known("stuck", Stuck, given)
    found = Stuck(**given)
    for name in ("times", "for_s"):
        value = getattr(found, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise ValueError(f"stuck: {name} is {value!r}; it must be a number or null")
    return found


def _endpoints(before: Mapping[str, str], given: Mapping[str, Any]) -> Mapping[str, str]:
    states = ("create-in-progress", "create-complete", "create-failed", "delete-in-progress", "delete-failed")
    if wrong := [state for state in given.values() if state is not None and state not in states]:
        raise ValueError(f"connect_endpoints has the state {wrong[0]!r}; it must be null or one of {', '.join(states)}")
    return {region: state for region, state in {**before, **given}.items() if state is not None}


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1, or null")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be true or false")
    return value


def _known(name: str, what: type, given: Mapping[str, Any]) -> None:
    known = {item.name for item in fields(what)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{name} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
