"""The story of one run, top to bottom: rent, check, serve, measure, let go, prove. It composes and decides nothing.

    plan ─► folder, journal, watchdog ─► hold ─► machine (launching) ─► SSH ─► facts and guards ─► server ─► tunnel ─► eval
         ◄─ tunnel, server and SSH close as `with` blocks ◄─ release ◄─ verdict, seal, proof

Sessions are `with` blocks and die with this process. What can be billed is removed by `release` alone. Every wait is
the scope's, so a signal or the deadline ends any of them within a moment; then `Waits.grace` lets the last words (the
server's log) be fetched on the open connection before it closes.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cost
from provisioner import __version__, baseline, closing, guards, interruption, times
from provisioner.errors import Exit, GpuleaseError, HostError, Interrupted, NotCreated, RefusedError, RunError, failure_body
from provisioner.identify import identify
from provisioner.journal import Journal, instant, rfc3339
from provisioner.launching import BOOT_S, Launched, launch
from provisioner.lease import LINGER_S, PATIENCE_S, hold, holdings, release
from provisioner.ledger import LeaseFolder, write_private
from provisioner.life import Access, Life, Progress, Tell, Waited, Waits
from provisioner.measure import evaluate, missed
from provisioner.model import Clock, Fact, Offer, Provider, Verdict
from provisioner.plan import Plan
from provisioner.remote import facts, hostkey, keys, ssh, tunnel
from provisioner.scope import Cancelled, Scope, SystemClock
from provisioner.serving import Serving, serve

PROBE_S = 5.0
TEARDOWN_S = 60.0
"""The run stops itself this long before the deadline at which the machine's own timer fires."""


@dataclass(frozen=True)
class Ended:
    """How it went: everything the caller needs to print and to exit."""

    lease: str
    verdict: Verdict
    exit: Exit
    error: BaseException | None
    results: dict[str, Any] | None
    sealed: closing.Sealed
    spend: cost.Spend | None
    now: str


def run(
    plan: Plan,
    provider: Provider,
    folder: LeaseFolder,
    scope: Scope,
    tell: Tell,
    *,
    access: Access,
    keep_s: float = 0.0,
    progress: Progress = lambda stage, done, total: None,
    waited: Waited = lambda stage, text: None,
    watch: Callable[[Journal], None] = lambda journal: None,
) -> Ended:
    """Live the whole life of one lease. What goes wrong in it is not raised: it is in `Ended`, with the exit code."""
    clock, waits = SystemClock(), Waits(scope)
    error: BaseException | None = None
    life: Life | None = None
    with Journal(folder.journal, clock) as journal:
        watch(journal)
        try:
            deadline = _genesis(plan, provider, folder, journal, clock)
            scope.limit(instant(deadline) - min(TEARDOWN_S, plan.max_seconds / 20))
            tell(
                "lease",
                f"{folder.id}  {provider.name} {plan.offer.region}  at most {cost.show(plan.at_most_micro_usd)}, "
                f"gone by {deadline[11:16]} UTC",
            )
            tend = guards.arm_watchdog(folder, journal, deadline, plan.profile.waived, provider, plan.offer.region)
            waits.tend = lambda: tell("guard", said) if (said := tend()) else None
            patience, linger = (closing.SIMULATED_PATIENCE_S, 0.0) if plan.simulated else (PATIENCE_S, LINGER_S)
            with hold(
                folder.id, provider, journal, clock, patience=patience, linger=linger, tell=lambda text: tell("release", text)
            ) as lease:
                life = Life(plan, lease, folder, waits, tell, progress, access, deadline, clock, waited=waited)
                try:
                    live(life, keep_s)
                except (Cancelled, GpuleaseError) as e:
                    tell("stop", f"{getattr(e, 'what', e)}: letting go of everything first")
                    raise
            error = missed(life.results) if life.results else None
        except (GpuleaseError, Cancelled) as e:
            error = e
        except OSError as e:
            kind = RunError if closing.touched(holdings(journal.entries)) else RefusedError
            error = kind(f"a file here could not be written: {e}", why=f"the state folder is {folder.path}", next=f"df -h {folder.path}")
        except Exception as e:
            # A bug of ours. The program ends here, and what may still cost money outranks it in the exit code.
            error = e
            journal.note("failure", failure_body(e))
        verdict = _verdict(journal) or release(folder.id, provider, journal, clock)
        tell("release", verdict_text(verdict, journal))
        code = closing.exit_code(verdict, error, journal)
        if code is Exit.UNPROVEN and not closing.touched(holdings(journal.entries)):
            code = Exit.REFUSED  # the disk did not even take the first line, so nothing was asked for
        sealed = closing.conclude(folder, journal, closing.outcome_of(error, journal.entries), code, provider)
        if new := baseline.words(journal.entries):
            tell("release", new)
        return Ended(
            folder.id,
            verdict,
            code,
            error,
            life.results if life else None,
            sealed,
            closing.spent(journal.entries),
            closing.now_line(journal.entries),
        )


def _genesis(plan: Plan, provider: Provider, folder: LeaseFolder, journal: Journal, clock: Clock) -> str:
    """The first line: what was promised, before anything is asked for. Returns the deadline."""
    deadline = rfc3339(float(int(clock.now()) + plan.max_seconds))
    profile = plan.profile
    journal.append(
        "genesis",
        {
            "lease": folder.id,
            "provider": provider.name,
            "settings": provider.settings(),
            "profile": {"name": profile.name, "sha256": profile.sha256},
            "deadline": deadline,
            "maxRunSeconds": plan.max_seconds,
            "budgetMicroUsd": plan.budget_micro_usd,
            "offer": offer_record(plan.offer),
            "quote": plan.quote.record(plan.expected_seconds, plan.max_seconds),
            "producer": {"name": "gpulease", "version": __version__, "pythonVersion": platform.python_version()},
            "simulated": plan.simulated,
            "waived": list(profile.waived),
        },
    )
    if not journal.has_reserve:
        raise RefusedError(
            f"no room for the emergency reserve in {folder.path} (64 KiB). Nothing was launched.",
            why="a full disk must not stop us from recording what we let go of",
            next=f"free some space: df -h {folder.path}",
        )
    write_private(folder.path / "profile.yaml", profile.text.encode())
    return deadline


def offer_record(offer: Offer) -> dict[str, Any]:
    record: dict[str, Any] = {
        "provider": offer.provider,
        "region": offer.region,
        "zone": offer.zone,
        "type": offer.type,
        "gpu": offer.gpu,
        "gpus": offer.gpus,
        "vramMib": offer.vram_mib,
        "vcpus": offer.vcpus,
        "spot": offer.spot,
        "price": price_record(offer.price),
    }
    return record | ({} if offer.market is None else {"market": price_record(offer.market)})


def price_record(price: cost.Price) -> dict[str, Any]:
    return {"microUsdPerHour": price.micro_usd_per_hour, "source": price.source, "asOf": price.as_of}


def live(life: Life, keep_s: float) -> None:
    """From nothing to a measured answer; on the next machine where the provider takes one back and the profile goes on."""
    life.waits.sleep(0)
    baseline.take(life.folder, life.lease.provider, life.lease.journal, life.waits.sleep)
    offers = list(zip(life.plan.offers, life.plan.quotes, strict=True))
    before = ""
    while True:
        try:
            launched, offers = launch(life, offers)
        except NotCreated as e:  # whatever the reason: a machine was rented and measured on before
            if not before:
                raise
            raise Interrupted(before, why=f"it could not go on: {e.what}\n{e.why}", next=e.next) from e
        try:
            return on_machine(life, launched, keep_s)
        except GpuleaseError as e:
            if not (why := interruption.taken(life, launched, e)):
                raise
            try:
                offers = interruption.go_on(life, launched, why, offers)
            except Interrupted as stopped:
                raise stopped from e
            before = why


def on_machine(life: Life, launched: Launched, keep_s: float) -> None:
    """Check, serve, measure on one machine, each session closing behind itself."""
    reach: dict[str, Any] = {
        "client_key": launched.client_key,
        "host_key": launched.host_key,
        "route": life.access.route,
        "sleep": life.waits.sleep,
    }
    address = launched.address
    with contextlib.ExitStack() as sessions:
        with life.stage("connect") as detail:
            booting = ssh.wait_for_ssh(address, life.access.port, life.access.user, within=BOOT_S, **reach)
            with life.waiting("connect", f"SSH on {address}"):
                host = sessions.enter_context(booting)
            detail |= {"id": launched.machine.id, "hostKeySha256": keys.fingerprint(launched.host_key)}
            life.tell("connect", f"{host.name}, host key {keys.fingerprint(launched.host_key)} as pinned")
            if life.access.host_key is None:
                # The key it was born with was in its user-data, which others can read.
                detail["firstHostKeySha256"] = detail["hostKeySha256"]
                reach["host_key"] = hostkey.rotate(host, launched.host_key, sleep=life.waits.sleep)
                hostkey.retire(life.folder.path / "keys", reach["host_key"])
                detail["hostKeySha256"] = keys.fingerprint(reach["host_key"])
                life.tell("connect", f"it made itself another: {detail['hostKeySha256']}, and no other is accepted from now on")
            detail |= identify(life, host, launched.machine)
        with life.stage("verify") as detail:
            # Before anything is downloaded: a machine that is not what was asked for is paid for by the second.
            lease, region = life.lease, launched.offer.region
            guarded = guards.read_back(host, lease.provider, lease.journal, life.deadline, life.plan.profile.waived, region)
            seen = facts.check(host, life.plan.profile.requirements)
            detail |= facts_record(seen)
            life.tell("verify", f"{facts_text(seen)}; {guarded}")
        traits = life.lease.provider.traits
        sessions.enter_context(guards.Renewal(ssh.renew, host, traits.powers_itself_off, times.of(traits.simulated).renew_every_s))
        sessions.enter_context(interruption.Listening(life, host, launched.offer))
        serving = sessions.enter_context(serve(life, host))
        with life.stage("tunnel") as detail:
            way = sessions.enter_context(tunnel.open(address, life.access.port, life.access.user, remote_port=serving.port, **reach))
            _through(way, serving, life)
            detail["localPort"] = way.local_port
            life.tell("tunnel", f"{way.url} to port {serving.port} on the machine's loopback")
        life.machines.append({"id": launched.machine.id, "type": launched.offer.type})
        evaluate(life, host, serving, way)
        if keep_s:
            keep(life, way, serving, keep_s)


def _through(way: tunnel.Tunnel, serving: Serving, life: Life) -> None:
    """A flag that says "open" proves nothing: ask the server through it."""
    for _ in range(5):
        if way.alive(serving.health, sleep=life.waits.sleep):
            return
        life.waits.sleep(0.5)
    raise HostError(
        "the tunnel is open and nothing answers through it", why=f"GET {serving.health} through {way.url}", next="gpulease logs"
    )


def keep(life: Life, way: tunnel.Tunnel, serving: Serving, seconds: float) -> None:
    """Hold the tunnel open for the user's own client, for as long as it answers."""
    with life.stage("keep") as detail:
        end = life.clock.now() + seconds
        key_file = life.folder.path / "api.key"
        write_private(key_file, serving.api_key.reveal_bytes())
        span = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        life.tell("keep", f"for {span}; Ctrl-C ends it sooner. In another terminal:")
        life.tell("keep", f'export OPENAI_BASE_URL={way.url}/v1 OPENAI_API_KEY="$(cat {key_file})"   # model {serving.model_name}')
        silent = 0
        while (left := end - life.clock.now()) > 0:
            life.waits.sleep(min(PROBE_S, left))
            silent = 0 if way.alive(serving.health, sleep=life.waits.sleep) else silent + 1
            if silent >= 3:
                raise HostError(
                    "the server stopped answering while the tunnel was kept",
                    why=f"{silent} health probes through the tunnel in a row got no answer",
                    next="gpulease logs",
                )
        detail["seconds"] = int(seconds)


def facts_record(seen: tuple[Fact, ...]) -> dict[str, Any]:
    """Facts as the journal keeps them: values, and serial numbers only as hashes."""
    record: dict[str, Any] = {}
    for fact in seen:
        record[fact.name] = _hashed(fact.value)
    return {"facts": record}


def _hashed(value: Any) -> Any:
    match value:
        case dict():
            return {k: closing.sha256(str(v).encode()) if k == "uuid" else _hashed(v) for k, v in value.items()}
        case list() | tuple():
            return [_hashed(v) for v in value]
        case _:
            return value


def facts_text(seen: tuple[Fact, ...]) -> str:
    gpus: list[dict[str, Any]] = next((fact.value for fact in seen if fact.name == "gpus"), [])
    if not gpus:
        return "no GPU asked for"
    first = gpus[0]
    return f"{len(gpus)} × {first['name']}, {first['memory_total_mib']} MiB, driver {first['driver']}"


def _verdict(journal: Journal) -> Verdict | None:
    """What the journal last saw; None for a lease that was refused before it asked for anything, and so was never let go of."""
    held = holdings(journal.entries)
    return held.verdict or (Verdict.UNPROVEN if held.asked else None)


def verdict_text(verdict: Verdict, journal: Journal) -> str:
    sweeps = [e["body"] for e in journal.entries if e["kind"] == "sweep" and e["body"]["checked"]]
    looked = f"; looked at {len(sweeps[-1]['classes'])} kinds, {sweeps[-1]['found']} left" if sweeps else ""
    words = {
        Verdict.RELEASED: "seen gone" if sweeps else "nothing was rented",
        Verdict.LEAVING: "asked to go and no longer billed, not yet seen gone",
        Verdict.HELD: "STILL THERE AND BILLED",
        Verdict.UNPROVEN: "COULD NOT SEE that it is gone: assume that it costs money",
    }
    return words[verdict] + looked
