"""The nouns: plain frozen data and the seams between the parts, no behaviour and no I/O.

A provider's own word for a condition is a `state` ("shutting-down"); ours is a `phase`, reduced to what a bill
cares about. Times are UTC; an instant in data is RFC 3339 text with a Z, in memory it is seconds since 1970.
Money is a whole number of micro-dollars, memory is MiB as nvidia-smi counts it unless a name says otherwise.

Everything above this file meets through the protocols at its end: `Provider` (a cloud), `Host` (a machine we can
run commands on) and `Clock`. It imports nothing of ours but the money package and
the type that a secret is held in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from cost import Beside, Price
from provisioner.secret import Secret

Json = Any
"""What RFC 8785 can write without floats: dict, list, str, int, bool, None."""


class Phase(StrEnum):
    """What a resource's state means for a bill."""

    COMING = "coming"  # asked for; may or may not be billed yet
    HERE = "here"  # exists, and is billed if it is of a billed kind (a stopped instance too: its disk is)
    LEAVING = "leaving"  # on its way out; the provider says it no longer bills
    GONE = "gone"  # the provider says it no longer exists


MAKES_MACHINES = frozenset({"fleet", "spot-fleet-request"})
"""Kinds that make machines by themselves. They are asked to go before any machine, or a machine that went might be made anew."""

PER_LAUNCH = frozenset({"launch-template"})
"""Kinds that describe one launch: each that is asked for has its own."""


class Verdict(StrEnum):
    """What was seen when we stopped looking. An observation, never a hope."""

    RELEASED = "released"  # seen gone, and nothing else of ours was found
    LEAVING = "leaving"  # asked to go and no longer billed, but not yet seen gone
    HELD = "held"  # seen still there, still billed
    UNPROVEN = "unproven"  # we could not look well enough to say


class Outcome(StrEnum):
    """How the run itself went, apart from whether everything is gone."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RECOVERED = "recovered"  # the owner died; somebody else let go
    GUARD_FIRED = "guard-fired"
    NEVER_LAUNCHED = "never-launched"


@dataclass(frozen=True)
class Requirements:
    """What the profile needs from a machine. `gpus == 0` means that no GPU is needed at all."""

    gpu: str | None = None  # "L4"; None accepts any
    gpus: int = 1
    vram_mib: int = 0  # per GPU, as nvidia-smi shows it
    driver_min: str | None = None  # "570" or "570.86"
    disk_gib: int = 60
    regions: tuple[str, ...] = ()
    types: tuple[str, ...] = ()  # instance types allowed; empty allows any that fits
    purchase: tuple[str, ...] = ("on-demand",)  # ways to buy that are allowed, "on-demand" and "spot", the preferred one first
    spot_max_micro_usd: int | None = None  # the most to pay per hour on the spot market; None: the on-demand price


@dataclass(frozen=True)
class Offer:
    """Something that could be rented now, and what it would cost."""

    provider: str
    region: str
    type: str
    gpu: str
    gpus: int
    vram_mib: int | None  # per GPU as the driver shows it; None when nobody has written it down
    vcpus: int
    price: Price  # the most that an hour can cost: the list price, or the ceiling of a spot request
    zone: str | None = None
    spot: bool = False
    market: Price | None = None  # what the spot market asks now; None on demand, or where it could not be asked
    beside: Beside | None = None  # what disk, address and traffic cost there, where that was asked; None: the snapshot has it


@dataclass(frozen=True)
class LaunchSpec:
    """What `create` is asked for. `user_data` holds a host key, so it is of the type that cannot be shown."""

    offer: Offer
    disk_gib: int
    deadline: str  # RFC 3339 Z; becomes a tag on everything created
    user_data: Secret = field(default=Secret(""), repr=False)
    image: str | None = None  # None: the provider's default GPU image
    ingress_cidr: str | None = None  # "203.0.113.7/32": who may reach port 22
    group: str | None = None  # a security group the user already has; None: one is made per lease
    subnet: str | None = None
    reach: str = "address"  # how SSH gets in: "address", or without any ingress from an address, "endpoint" and "ssm"
    fleet: bool = False  # asked for through something that makes machines, and that the provider itself ends: see `Fleeting`
    quote: Mapping[str, Json] | None = None  # the price lines of this offer, so that the journal can price what it makes

    def public(self) -> dict[str, Json]:
        """The allow-listed part that may be journalled."""
        return {
            "type": self.offer.type,
            "region": self.offer.region,
            "zone": self.offer.zone,
            "spot": self.offer.spot,
            "image": self.image,
            "diskGib": self.disk_gib,
            "deadline": self.deadline,
            "group": self.group,
            "subnet": self.subnet,
            "reach": self.reach,
            **({"fleet": True} if self.fleet else {}),
            **({} if self.quote is None else {"quote": dict(self.quote)}),
        }


@dataclass(frozen=True)
class Resource:
    """One thing at a provider that is ours."""

    kind: str  # "instance", "volume", "network-interface", "security-group", "host-lock" …
    id: str
    phase: Phase
    state: str = ""  # the provider's own word, kept as evidence
    token: str | None = None  # the intent it answers
    billed: bool = True  # False for what is ours but free, like a security group
    region: str = ""
    lease: str = ""  # whose it is, from its tag; "" when not shown
    facts: Mapping[str, Json] = field(default_factory=dict)  # address, launchTime, stateReason, requestId, providerDate …


@dataclass(frozen=True)
class Looked:
    """One kind of resource in one region, and whether we could list it to the last page."""

    kind: str
    region: str
    checked: bool = True
    reason: str = ""  # why not, when not checked


@dataclass(frozen=True)
class Inventory:
    """Everything a provider shows under one lease's tag, and how well it looked. Never a partial list: that raises."""

    resources: tuple[Resource, ...]
    looked_in: tuple[Looked, ...] = ()
    request_ids: tuple[str, ...] = ()
    provider_date: str | None = None  # the provider's own clock, RFC 3339 Z, from the last answer


@dataclass(frozen=True)
class Listed:
    """Everything of one kind in one region, whosever it is; or why that was not looked at."""

    kind: str
    region: str
    resources: tuple[Resource, ...] = ()
    unchecked: str = ""


@dataclass(frozen=True)
class Traits:
    """What the engine must know about a provider, said once by the provider itself."""

    settle_s: float  # after this long a create whose answer was lost must have become listable
    second_look_s: float = 2.0  # two empty looks, at least so far apart, before anything is called released
    powers_itself_off: bool = False  # does a guest power-off end the bill?
    simulated: bool = False
    schedules: bool = False  # can it be told to end a machine at a time, by itself? See `Scheduling`
    fleets: bool = False  # can a machine be asked for through something that has an end of its own? See `Fleeting`


@dataclass(frozen=True)
class Result:
    """What one remote command did. Text is decoded as UTF-8 with replacement; it is hostile until cleaned."""

    exit: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Fact:
    """Something read off a machine: the command, what it printed, and what we made of it."""

    name: str
    value: Json
    command: str
    raw: str


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970, UTC. Whoever runs the machine may set it."""

    def counting(self) -> float:
        """Seconds on a clock that nobody sets: how long something took is the difference of two of these."""

    def sleep(self, seconds: float) -> None: ...


class Provider(Protocol):
    """A cloud, in five verbs. Waiting is the engine's. See `providers/conformance.py` for what each must do."""

    name: str
    traits: Traits
    anchor: str  # "run/<lease> jh/<32 hex>": goes into the user agent of every request, so that the provider's log carries it

    def settings(self) -> dict[str, Json]:
        """What `providers.connect` needs to reach the same account again from another process. No secrets."""

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Cheapest first, free of side effects; a price is never guessed."""

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        """The kinds to create, in order; the last is the machine, or what makes it."""

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        """Ask once, tag at birth, return as soon as there is an id. `NotCreated` only on a positive refusal."""

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> Sequence[str]:
        """Read a launch back: what the provider shows against what was asked for, each difference one sentence."""

    def inventory(self, lease: str | None = None) -> Inventory:
        """Every kind we could have made, to the last page, or raise. None: every lease of ours."""

    def observe(self, resource: Resource) -> Resource:
        """Ask by id. NotFound is `gone` only for a resource that was known."""

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        """Ask, and return what was answered (requestId, providerDate, state). Already gone and already asked are
        success; still in use raises ProviderError."""


class Scheduling(Provider, Protocol):
    """A provider with `traits.schedules`: `create("schedule", …)` after the machine makes a guard that needs nothing of ours."""

    def check_schedule(self, regions: Sequence[str]) -> None:
        """RefusedError unless everything that a schedule needs is there in these regions. Creates nothing."""

    def verify_schedule(self, schedule: Resource) -> Sequence[str]:
        """Read it back: what the provider shows against what was asked for, each difference one sentence."""


class Fleeting(Provider, Protocol):
    """A provider with `traits.fleets`: `create("fleet", …)` makes what makes the machine, a moment later, and ends it at its time."""

    def check_fleet(self) -> None:
        """RefusedError unless everything that a fleet needs is there. Creates nothing."""

    def made_by(self, fleet: Resource) -> Resource | None:
        """The machine that it made, with the fleet's token; None: not yet. `NotCreated` only where it says that it cannot make one."""

    def verify_fleet(self, fleet: Resource) -> Sequence[str]:
        """Read it back: what the provider shows against what was asked for, each difference one sentence."""


@runtime_checkable
class Witness(Protocol):
    """A provider whose own log can be shown one more journal head, after everything."""

    def witness(self) -> Mapping[str, Json]:
        """One call that changes nothing and carries the anchor. Its request id and the provider's date; ProviderError otherwise."""


@runtime_checkable
class Unfiltered(Protocol):
    """A provider that can list what is there without asking whose it is. For what a proof says; nothing is decided by it."""

    def everything(self, *, within: float, sleep: Callable[[float], None]) -> Sequence[Listed]:
        """All of it, in `within` seconds at most. What could not be listed to its end is not looked at; nothing is raised for it."""


class Host(Protocol):
    """A machine we can run fixed scripts on, over a connection whose host key was pinned."""

    name: str  # "ubuntu@203.0.113.9", for people

    def run(
        self, script: str, *, values: Mapping[str, str] | None = None, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> Result:
        """Run a fixed POSIX sh script. `values` become quoted shell variables; `stdin` is for secrets and data.

        Raises HostError when the connection is lost, on timeout, and, with `check`, on a non-zero exit.
        """

    def stream(
        self,
        script: str,
        on_line: Callable[[str], None],
        *,
        values: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 3600.0,
    ) -> Result:
        """As `run`, handing over each line of stdout as it comes (Result.stdout is then empty)."""

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None: ...

    def get(self, path: str, *, limit: int = 16 << 20) -> bytes: ...
