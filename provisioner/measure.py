"""The eval of one run: every case asked, every sample kept, every figure computed from the samples.

Each vantage is a pass of the same client over the same cases: `host` on the machine (latency), `tunnel` from here
(end-to-end truth). They are never mixed. Samples are on disk as they come, so whatever ends the run, what was paid
for is kept; results.json is computed from them, also for a pass that was cut short, and then says so.

A lost connection is made again while the lease has time, and only the cases without an answer are asked again. A
server that died is an error of its own, with its log's reason, and not a low score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tenacity

from provisioner import runtimes
from provisioner.errors import HostError, HostKeyError, MissedThreshold, RuntimeFailed
from provisioner.evals import cases, limits, local, score, stats
from provisioner.evals.samples import Samples, joined, settled
from provisioner.ledger import write_private
from provisioner.life import Life
from provisioner.profile import Profile
from provisioner.remote.ssh import SshHost
from provisioner.remote.tunnel import Tunnel
from provisioner.runtimes import server
from provisioner.serving import Serving

RECONNECTS = 3
RECONNECT_S = 60.0
SCHEMA = "gpulease/results/1"


@dataclass
class Passes:
    """The passes so far, and the file that every line goes to."""

    profile: Profile
    evals: cases.EvalSet
    path: Path
    passes: dict[str, list[Samples]] = field(default_factory=dict)
    machines: list[dict[str, Any]] = field(default_factory=list)  # in order; more than one where a spot machine was taken back

    def answered(self) -> int:
        return sum(1 for parts in self.passes.values() for part in parts for s in part.samples if not s.warmup and not s.error)

    def asked(self, vantage: str) -> set[str]:
        """The cases that need not be asked again: all that were, but for those that failed on a machine that was taken back."""
        parts = self.passes[vantage]
        return {s.case for part in parts for s in part.samples if not s.warmup and not part.unasked(s)}

    def _asked_of(self, figures: dict[str, Any]) -> dict[str, tuple[int, int]]:
        """By vantage, how many of how many requests the figures are over."""
        every = len(self.evals.cases)
        return {vantage: (figures.get(vantage, {}).get("sent", 0), every) for vantage in self.profile.load.vantages}

    def results(self, complete: bool) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        scored: list[score.Score] = []
        for vantage, parts in self.passes.items():
            samples = settled(joined(parts))
            measured = [s for s in samples if not s.warmup]
            scores = score.scores(self.evals.cases, measured)
            scored += scores
            objectives = limits.objectives(self.profile.thresholds)
            figures[vantage] = stats.figures(samples, scores, cases=self.evals.cases, objectives=objectives)
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "complete": complete,
            "evalSet": self.evals.public(),
            "model": {"id": self.profile.model.id, "revision": self.profile.model.revision},
            "runtime": {"name": self.profile.runtime.name, "version": self.profile.runtime.version},
            "load": {
                "concurrency": self.profile.load.concurrency,
                "warmup": self.profile.load.warmup,
                "timeoutSeconds": self.profile.load.timeout_s,
            },
            "scores": [one.public() for one in scored],
            "stats": figures,
            "clients": {vantage: [part.header for part in parts] for vantage, parts in self.passes.items()},
            "thresholds": limits.judge(self.profile.thresholds, figures, None if complete else self._asked_of(figures)),
        }
        if len(self.machines) > 1:
            document["machines"] = self.machines
        if {"host", "tunnel"} <= figures.keys():
            document["tunnelCost"] = stats.tunnel_cost(figures["host"], figures["tunnel"])
        return document


def evaluate(life: Life, host: SshHost, serving: Serving, way: Tunnel) -> None:
    """Ask everything from every vantage; samples.jsonl and results.json are in the lease's folder whatever happens."""
    profile = life.plan.profile
    if life.passes is None:
        life.passes = Passes(profile, cases.load(profile.eval.set), life.folder.path / "samples.jsonl", machines=life.machines)
    passes: Passes = life.passes
    for part in (part for parts in passes.passes.values() for part in parts):
        part.taken_back = True  # whatever is there already was measured on a machine that is gone
    complete = False
    with life.stage("eval") as detail:
        try:
            for vantage in profile.load.vantages:
                _pass(life, passes, vantage, host, serving, way)
                _still_there(life, passes, vantage, host, serving)
            complete = True
        finally:
            results = passes.results(complete)
            write_private(life.folder.path / "results.json", dump(results))
            life.results = results
        detail |= {"evalSetSha256": passes.evals.sha256, "samples": sum(len(p.samples) for parts in passes.passes.values() for p in parts)}
        for vantage in profile.load.vantages:
            life.tell("eval", f"{vantage}: {summary(results['stats'][vantage])}")


def _pass(life: Life, passes: Passes, vantage: str, host: SshHost, serving: Serving, way: Tunnel) -> None:
    parts = passes.passes.setdefault(vantage, [])
    total = len(passes.evals.cases)
    fd = os.open(passes.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "a", encoding="utf-8") as file:
        for attempt in range(RECONNECTS + 1):
            done = passes.asked(vantage)
            left = replace(passes.evals, cases=tuple(case for case in passes.evals.cases if case.id not in done))
            if not left.cases:
                return
            part = Samples(vantage, machine=len(passes.machines))
            parts.append(part)

            def on_line(line: str, part: Samples = part) -> None:
                before = part.junk
                part.feed(line)
                if part.junk == before:
                    file.write(line + "\n")
                life.progress(f"eval {vantage}", len(passes.asked(vantage)), total)

            try:
                if vantage == "host":
                    _on_the_machine(life, passes, left, host, serving, on_line)
                else:
                    _from_here(life, passes, left, serving, way, on_line)
                return
            except HostError as e:
                if vantage != "host" or attempt == RECONNECTS:
                    raise
                life.tell("eval", f"{e.what}; connecting again")
                _connect_again(life, host)
            finally:
                file.flush()
                os.fsync(file.fileno())


def _connect_again(life: Life, host: SshHost) -> None:
    """A line that dropped is rarely back within the second. The machine is paid for meanwhile, so not for ever."""
    tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, HostError) and not isinstance(e, HostKeyError)),
        wait=tenacity.wait_exponential(multiplier=1.0, max=5.0),
        stop=tenacity.stop_after_delay(RECONNECT_S),
        sleep=life.waits.sleep,
        reraise=True,
    )(host.reconnect)


def _on_the_machine(
    life: Life, passes: Passes, left: cases.EvalSet, host: SshHost, serving: Serving, on_line: Callable[[str], None]
) -> None:
    client = f"{serving.server.folder}/client.py"
    host.put(local.source(), client)
    document = _document(passes.profile, left, f"http://127.0.0.1:{serving.port}/v1", serving, "host", serving.server.key_file)
    result = host.stream(
        'exec python3 "$client"',
        on_line,
        values={"client": client},
        stdin=json.dumps(document).encode(),
        timeout=_limit(passes.profile, left),
    )
    if result.exit != 0:
        raise HostError(
            "the load client did not run on the machine", why=result.stderr[-600:], next="an image with python3 3.8 or newer (launch.image)"
        )


def _from_here(life: Life, passes: Passes, left: cases.EvalSet, serving: Serving, way: Tunnel, on_line: Callable[[str], None]) -> None:
    key_file = life.folder.path / "api.key"
    write_private(key_file, serving.api_key.reveal_bytes())
    document = _document(passes.profile, left, f"{way.url}/v1", serving, "tunnel", str(key_file))
    local.run_client(document, on_line=on_line, sleep=life.waits.sleep)


def _document(profile: Profile, left: cases.EvalSet, url: str, serving: Serving, vantage: str, key_file: str) -> dict[str, Any]:
    return local.document(
        left,
        url=url,
        model=serving.model_name,
        vantage=vantage,
        key_file=key_file,
        concurrency=profile.load.concurrency,
        rate_per_s=profile.load.rate_per_s,
        warmup=profile.load.warmup,
        timeout_s=profile.load.timeout_s,
        max_tokens=profile.eval.max_tokens,
        temperature=profile.eval.temperature,
        seed=profile.eval.seed,
    )


def _limit(profile: Profile, left: cases.EvalSet) -> float:
    """Longer than the client can take when every request runs into its time-out."""
    rounds = -(-(len(left.cases) + profile.load.warmup) // profile.load.concurrency) + 1
    return 120.0 + rounds * profile.load.timeout_s


def _still_there(life: Life, passes: Passes, vantage: str, host: SshHost, serving: Serving) -> None:
    """Errors may be the model's; a server that is gone is not."""
    if not any(s.error for part in passes.passes[vantage] for s in part.samples) or server.alive(host, serving.server):
        return
    runtime = runtimes.get(passes.profile.runtime.name)
    log = host.run('tail -c 65536 "$HOME/$folder/server.log"', values={"folder": serving.server.folder}, check=False).stdout
    found = runtime.diagnose(log)
    raise RuntimeFailed(
        f"{runtime.name} died during the eval" + (f": {found.what}" if found else ""),
        why=found.why if found else "its process is gone; the samples until then are kept",
        next=found.next if found else "gpulease logs",
    )


def missed(results: dict[str, Any]) -> MissedThreshold | None:
    """The thresholds that were not met, or not measured, as the error that the run ends with."""
    missed = [one for one in results["thresholds"] if not one["ok"]]
    if not missed:
        return None
    lines = [f"{one['name']} ({one['vantage'] or 'no vantage'}): {one['why']}" for one in missed]
    return MissedThreshold(
        f"{len(missed)} of {len(results['thresholds'])} thresholds missed: {lines[0]}", why="\n".join(lines), next="gpulease report"
    )


def summary(figures: dict[str, Any]) -> str:
    """One line for the story."""

    def ms(name: str) -> str:
        return f"{figures[name] / 1e6:.1f} ms" if name in figures else f"not known ({figures['absent'].get(name, 'not measured')})"

    if "right" not in figures:
        return str(figures.get("absent", {}).get("all", "nothing was measured"))
    return (
        f"{figures['right']} of {figures['sent']} correct, {figures['failed']} failed; TTFT p50 {ms('ttftP50Ns')}, E2E p50 {ms('e2eP50Ns')}"
    )


def dump(document: dict[str, Any]) -> bytes:
    """A results document as bytes: one form, keys sorted."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"
