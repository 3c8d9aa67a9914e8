"""Play one history: the owner's process, what befalls it, who comes after it, and what is true at the end.

    owner ─► (cut short, or not) ─► watchdog, release, reap, in the script's order, each cut short or not
          ─► a calm day: no more faults, somebody lets go ─► once more, which must change nothing ─► `checks`

An abandoned history has nobody between the owner's end and the hour in which the last guard has had its turn.
"""

from __future__ import annotations

import contextlib
import random
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

import cost
from provisioner import closing, commands, ledger, profile, reap, run, watchdog
from provisioner.errors import Exit, GpuleaseError, HostError
from provisioner.journal import instant, read
from provisioner.life import Access
from provisioner.model import Offer, Verdict
from provisioner.plan import Plan
from provisioner.providers.aws import AwsProvider
from provisioner.scope import Scope
from tests.sim import process as P
from tests.sim.aws import Client
from tests.sim.core import CoreProvider
from tests.sim.disk import Disk, SimPath
from tests.sim.faults import CLASSES
from tests.sim.install import STAGE
from tests.sim.script import AWS, FLEETS, Cut, Script
from tests.sim.wire import Network, Strike, quiet
from tests.sim.world import GROUP, MACHINE, SCHEDULE, World

LEASE = "r-20270115t080000z-7f3a9k2m"
THEIRS = "r-20270115t075900z-7f3a9k2n"
REGION = "us-east-1"
OWNER_PID = 10
RENEW_S, STEP_S = 60.0, 30.0
PRICE = cost.Price(1_000_000, "simulated", "2026-11-21")
_SMOKE = profile.load("smoke")
PLANS: dict[Any, Plan] = {}


@dataclass
class Claim:
    """What a process said at its end."""

    t: float
    who: str
    verdict: Verdict | None
    exit: int
    text: str = ""
    beside: bool = False  # its owner lived on: what that made afterwards is not this claim's


@dataclass
class Faulty:
    """A DiskFault, under way."""

    op: str
    skip: int
    errno: int
    times: int
    part: float
    often: str

    def hits(self, site: str, creates: bool) -> bool:
        return site == self.op and (site != "open" or creates)


@dataclass
class History:
    script: Script
    world: World
    network: Network
    laptop: P.Computer
    other: P.Computer
    rng: random.Random
    claims: list[Claim] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    scope: Scope | None = None
    deadline: float | None = None  # in world time, once it is known
    overdue: float | None = None
    processes: int = 0
    asked_again: int = 0  # removals that a second letting go sent
    calm_verdict: Verdict | None = None
    died_at: float | None = None
    bugs: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    began: bool = True
    abandoned_at: float = 0.0
    abandoned_seen: list[tuple[Any, float | None]] = field(default_factory=list)

    @property
    def folder(self) -> ledger.LeaseFolder:
        return ledger.LeaseFolder(SimPath("state", "runs", LEASE))  # type: ignore[arg-type]

    def tell(self, *said: str) -> None:
        self.story.append(" ".join(said))

    # -- processes -----------------------------------------------------------------------------------------------------

    def live(self, who: str, calm: bool = False) -> P.Process:
        """One process, from its start to its end."""
        number = self.processes
        if not calm:
            self.processes += 1
        computer = self.other if who == "elsewhere" else self.laptop
        process = P.Process(computer, who, OWNER_PID if who == "owner" else OWNER_PID + 1 + number, OWNER_PID if who == "watchdog" else 1)
        process.befalls = self.befall
        if not calm:
            process.cuts = {cut.at: cut for cut in self.script.cuts if cut.process == number}
            process.disk_faults = [
                Faulty(f.op, f.nth, f.errno, f.times, f.part, "once" if f.times == 1 else "three times" if f.times == 3 else "for ever")
                for f in self.script.disk
                if f.process == number
            ]
        with P.running(process), contextlib.suppress(P.Crash):
            try:
                getattr(self, who.replace("elsewhere", "reap"))()
            except P.Stuck:
                raise
            except Exception as e:
                # No way to end has an exception in it that nobody expected.
                self.bugs.append(f"bug: the {who} ended with {type(e).__name__}: {e}\n{traceback.format_exc()}")
        self.steps.append(process.count)
        if process.dead and self.died_at is None:
            self.died_at = self.world.t
        return process

    def befall(self, process: P.Process, cut: Cut, site: str) -> None:
        P.COVERED[site, cut.what, ("owner", "second", "third", "fourth")[min(cut.process, 3)]] += 1
        match cut.what:
            case "kill":
                process.die()
            case "flight":
                if process.flight is not None:
                    self.world.later(self.world.weather.effect_s, quiet(process.flight))
                process.die()
            case "power":
                process.die()
                process.disk.power_cut(self.rng)
                for one in list(P._LIVING.values()):
                    if one.computer is process.computer:
                        one.die()
            case "hang":  # it stands still, and holds the lock: only its watchdog can do something about that
                if self.overdue is None:
                    process.die()
                else:
                    self.live("watchdog", calm=True)
            case "suspend":
                process.computer.asleep_s += cut.arg
                self.world.go_on(cut.arg)
            case "clock":
                process.computer.wrong_s += cut.arg
            case "partition":
                self.network.cut_off_until = self.world.t + cut.arg
            case "signal":
                if self.scope is not None:
                    self.scope.cancel("SIGTERM")
            case "reclaim":
                for thing in self.world.of(LEASE):
                    if thing.kind == MACHINE and thing.facts.get("spot"):
                        self.world.end(thing, "Server.SpotInstanceTermination")
            case beside:  # another process runs in between
                self.live(beside, calm=True)

    def owner(self) -> None:
        plan = plan_of(self.script)
        provider = STAGE.connect("aws", {"region": REGION, "regions": [REGION]})
        card = {"provider": provider.name, "settings": provider.settings(), "simulated": False}
        self.began = False
        try:
            folder = ledger.create(card, LEASE)
        except (GpuleaseError, OSError):
            self.claims.append(Claim(self.world.t, "owner", None, int(Exit.REFUSED)))
            return
        self.began = True
        self.scope = Scope()
        access = Access(ingress_cidr="203.0.113.7/32")
        try:
            try:
                ended = run.run(plan, provider, folder, self.scope, self.tell, access=access)
            finally:
                commands._forget_unbegun(folder)
        except (GpuleaseError, OSError) as e:  # before the first line: what the command line then prints
            self.claims.append(Claim(self.world.t, "owner", None, int(Exit.REFUSED), f"{e}"))
            return
        text = commands._run_text(ended, False) if ended.exit is not Exit.OK else ""
        self.claims.append(Claim(self.world.t, "owner", ended.verdict, int(ended.exit), text))

    def on_machine(self, life: Any, launched: Any, keep_s: float) -> None:
        """What happens on the machine, as far as money cares: somebody works there, says so now and then, and is lost with it."""
        thing, script = self.world.things[launched.machine.id], self.script
        end = self.world.t + (10 * script.max_s if script.life == "overruns" else script.work_s)
        renewed = self.world.t
        while self.world.t < end:
            life.waits.sleep(min(STEP_S, end - self.world.t))
            if thing.asked_at is not None or thing.facts.get("stopped"):
                raise HostError(f"{thing.id} does not answer any more", why="the connection ended", next="gpulease logs")
            if self.world.t - renewed >= RENEW_S:
                renewed = self.world.t
        if script.life == "fails":
            raise HostError("the server did not start", why="simulated", next="gpulease logs")
        if script.life == "bug":
            raise KeyError("a bug of ours")

    def start_watchdog(self, folder: Any, overdue: float) -> int:
        self.overdue = overdue
        return 77

    def watchdog(self) -> None:
        overdue = self.overdue if self.overdue is not None else P.SimTime.time()
        try:
            self.claim("watchdog", watchdog.main(self.folder, overdue, OWNER_PID))
        except (GpuleaseError, OSError):  # its own patience has ended as well: its log has it, and nobody reads an exit code
            self.claim("watchdog", Verdict.UNPROVEN)

    def release(self) -> None:
        """As `gpulease release` does it."""
        try:
            try:
                folder = ledger.find(LEASE)
            except GpuleaseError:
                return
            journal = ledger.adopt(folder, "release")
            verdict = closing.let_go(folder, journal, tell=lambda text: self.tell("release", text))
        except ledger.Busy:
            return
        except (GpuleaseError, OSError):
            self.claims.append(Claim(self.world.t, "release", Verdict.UNPROVEN, int(Exit.UNPROVEN)))
            return
        self.claims.append(Claim(self.world.t, "release", verdict, int(closing.exit_code(verdict, None, journal))))

    def reap(self, names: tuple[str, ...] | None = None) -> None:
        """As `gpulease reap --go` does it: named, where the lease would still be in time."""
        clouds = {REGION: STAGE.connect("aws", {"region": REGION, "regions": [REGION]})}
        try:
            found = reap.reap(
                clouds, lambda regions: STAGE.connect("aws", {"region": REGION, "regions": list(regions)}), names or self._names(), go=True
            )
        except (GpuleaseError, OSError):
            return
        for one in found.leases:
            if one.lease == LEASE:
                self.claim("reap", one.verdict)

    def _names(self) -> tuple[str, ...]:
        shown = any(t.kind != SCHEDULE and self.world.shows(t) for t in self.world.of(LEASE))
        return (LEASE,) if shown and self.rng.random() < 0.6 else ()

    def claim(self, who: str, verdict: Verdict | None) -> None:
        if verdict is not None:
            beside = OWNER_PID in P._LIVING and not P._LIVING[OWNER_PID].dead
            self.claims.append(Claim(self.world.t, who, verdict, int(closing.worst([verdict])), beside=beside))


def plan_of(script: Script) -> Plan:
    key = (script.max_s, script.offers, script.spot, script.goes_on, script.own_group, script.waived, script.level == FLEETS)
    if key not in PLANS:
        zones = [f"{REGION}{letter}" for letter in "abc"[: script.offers]]
        offers = tuple(Offer("aws", REGION, "g6.xlarge", "L4", 1, 23034, 4, PRICE, zone, script.spot) for zone in zones)
        launch = _SMOKE.launch.model_copy(
            update={"security_group": "sg-ours" if script.own_group else None, "fleet": script.level == FLEETS}
        )
        wanted = replace(_SMOKE, waived=script.waived, launch=launch, on_interruption="continue" if script.goes_on else "stop")
        quotes = tuple(cost.Quote((cost.Line("compute", PRICE.micro_usd_per_hour, PRICE.source, PRICE.as_of),)) for _ in offers)
        budget = max(quote.at_most(script.max_s) for quote in quotes)
        PLANS[key] = Plan(wanted, offers, quotes, budget, script.max_s, script.max_s, False)
    return PLANS[key]


def _stage(history: History) -> None:
    network = history.network
    clients: dict[tuple[str, str], Client] = {}

    def client(service: str, region: str) -> Client:
        if (service, region) not in clients:
            clients[service, region] = Client(lambda: network, service, region)
        return clients[service, region]

    def connect(name: str, settings: Any) -> Any:
        if history.script.level == AWS:
            return AwsProvider(settings["region"], regions=settings["regions"])
        return CoreProvider(lambda: network, settings["region"], settings["regions"])

    STAGE.client, STAGE.connect = client, connect
    STAGE.on_machine, STAGE.start_watchdog = history.on_machine, history.start_watchdog


def begin(script: Script) -> History:
    """A world with two computers and some strangers in it; nothing has happened yet."""
    rng = random.Random(script.seed)
    world = World(script.seed, script.weather)
    laptop, other = (P.Computer(name, Disk(), world, rng) for name in ("laptop", "other"))
    history = History(script, world, Network(world), laptop, other, rng)
    history.network.strikes = [Strike(f.site, f.nth, f.times, CLASSES[f.what]) for f in script.faults]
    for computer in (laptop, other):
        for path in (("state",), ("state", "runs")):
            computer.disk.name(path[:-1], (path[-1], computer.disk.new(0o700, folder=True)))
            computer.disk.sync(computer.disk.folder(path[:-1]))
    journal = ("state", "runs", LEASE, "journal.jsonl")

    def is_durable(lease: str, token: str) -> bool:
        here = laptop.disk.root
        for part in journal:
            found = here.names.get(part)
            if found is None:
                return False
            here = found
        return token.encode() in here.durable

    world.is_durable = is_durable
    if script.strangers:
        _strangers(world)
    if script.own_group:
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.0/24"}]}
        mine = world.make(GROUP, REGION, "", "", [], GroupName="mine", rules=[rule])
        mine.theirs = True
        world.things["sg-ours"] = world.things.pop(mine.id)
        mine.id = "sg-ours"
    world.tagged = script.tagged
    _stage(history)
    return history


def _strangers(world: World) -> None:
    """Somebody else's things, some of which look like ours."""
    far = "2027-02-15T08:00:00.000Z"

    def theirs(kind: str, lease: str, tags: dict[str, str], **facts: Any) -> None:
        thing = world.make(kind, REGION, lease, "", [{"Key": k, "Value": v} for k, v in tags.items()], **facts)
        thing.theirs = True

    mine = {"gpulease:lease": THEIRS, "gpulease:deadline": far, "gpulease:managed": "true"}
    theirs(MACHINE, THEIRS, mine, asked={})
    theirs("volume", THEIRS, mine)
    theirs(GROUP, THEIRS, mine, GroupName=f"gpulease-{THEIRS}")
    theirs(MACHINE, "", {"Name": f"gpulease {LEASE}", "gpulease:leases": LEASE}, asked={})
    theirs(MACHINE, "", {"gpulease:lease": f"{LEASE}2", "gpulease:managed": "yes"}, asked={})
    theirs("volume", "", {"Gpulease:Lease": LEASE})
    name = f"{THEIRS}-5-20270215t080000z"
    theirs(SCHEDULE, THEIRS, {"gpulease:lease": THEIRS}, Name=name, instance="i-theirs", asked={"Name": name, "State": "ENABLED"})


def play(script: Script, *, prepare: Any = None) -> History:
    """The whole history. Call it inside `install.simulated()`."""
    history = begin(script)
    if prepare is not None:
        prepare(history)
    try:
        _play(history)
    except P.Stuck as e:
        history.bugs.append(f"it does not end: {e}")
    return history


def _play(h: History) -> None:
    h.live("owner")
    h.deadline = _deadline(h)
    if h.script.abandoned:
        _wait_for_the_guards(h)
    for who in h.script.after:
        h.world.go_on(h.rng.choice((0.0, 5.0, 200.0)))
        h.live(who)
    # A calm day: whatever was in the way is gone, and somebody lets go.
    h.network.strikes, h.network.cut_off_until = [], 0.0
    h.laptop.wrong_s = h.other.wrong_s = 0.0
    if h.script.abandoned:
        h.world.go_on(1000.0)
        h.live("elsewhere", calm=True)
    if not (h.claims and h.claims[-1].verdict is Verdict.RELEASED):
        before = len(h.claims)
        h.live("release", calm=True)
        h.calm_verdict = h.claims[-1].verdict if len(h.claims) > before else None
        _sweep_up(h)
        if h.script.seed % 4:
            h.world.go_on(100_000.0)
            return
    was = _state(h)
    h.live("release", calm=True)
    h.asked_again = sum(a != b for a, b in zip(was, _state(h), strict=False))
    h.world.go_on(100_000.0)


def _sweep_up(h: History) -> None:
    """Where no journal is left, the lease is known by its tags alone."""
    process = P.Process(h.laptop, "looking", 99)
    with P.running(process):
        here = h.folder.path.is_dir()
    if not here and any(t.there(h.world.t) for t in h.world.of(LEASE)):
        h.world.go_on(40_000.0)
        h.live("elsewhere", calm=True)


def _state(h: History) -> list[tuple[str, float | None]]:
    return [(t.id, t.asked_at) for t in h.world.things.values()]


def _deadline(h: History) -> float | None:
    """When the machine was to be gone, by the true clock."""
    for thing in h.world.of(LEASE):
        for tag in thing.tags:
            if tag["Key"] == "gpulease:deadline":
                return instant(tag["Value"]) - P.EPOCH
    return None


def _wait_for_the_guards(h: History) -> None:
    deadline = h.deadline if h.deadline is not None else h.world.t
    h.world.go_on(max(0.0, deadline - h.world.t) + 2400.0)
    h.abandoned_at = h.world.t
    h.abandoned_seen = [(t, t.bills_until()) for t in h.world.of(LEASE) if t.kind == MACHINE]


def journal_of(h: History, computer: P.Computer) -> Any:
    process = P.Process(computer, "checking", 98)
    with P.running(process):
        return read(h.folder.journal)
