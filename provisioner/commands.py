"""What each command does, between the command line and floor 3: it gathers, calls, and turns the answer into text.

Each function returns (exit code,) a JSON document and the same as text. Nothing here knows typer; nothing below here
knows that there is a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cost
from provisioner import closing, ledger, profile, providers
from provisioner.clouds import Target, access_card, default_region, launching, planned, rehearsal_folder
from provisioner.errors import Exit, GpuleaseError, RefusedError, UsageError
from provisioner.life import Access
from provisioner.render import SIMULATED, Story, error_text, table
from provisioner.scope import Cancelled, Scope, cry, signals

Answer = tuple[dict[str, Any], str]
Coded = tuple[int, dict[str, Any], str]


def run_profile(target: Target, *, ask: Callable[[str], bool] | None) -> Coded:
    from provisioner.run import run

    story, scope = Story(), Scope()

    def heard(text: str) -> None:
        cry(text.replace(" again", ": still letting go") if "again" in text else f"{text}: letting go of everything first")

    with signals(scope, heard), planned(target) as ready:
        print(ready.plan_text(), file=sys.stderr)
        made = ready.plan
        question = f"about {cost.show(made.expected_micro_usd)}, at most {cost.show(made.at_most_micro_usd)}. Go? [y/N] "
        if ask is not None and not ask(question):
            raise RefusedError("not started", why="the question was not answered with yes")
        access = launching(target, ready)
        card = {"provider": ready.provider.name, "settings": ready.provider.settings(), "access": access_card(access)}
        folder = ledger.create(card)

        def watch(journal: Any) -> None:
            story.spent = lambda: cost.show(costs.best) if (costs := closing.spent(journal.entries)) else ""

        ended = run(
            made, ready.provider, folder, scope, story.tell, access=access, keep_s=target.keep_s, progress=story.progress, watch=watch
        )
    return int(ended.exit), _run_record(ended, made.simulated), _run_text(ended, made.simulated)


def _run_record(ended: Any, simulated: bool) -> dict[str, Any]:
    error = ended.error
    return {
        "schema": "gpulease/run/1",
        "simulated": simulated,
        "lease": ended.lease,
        "verdict": str(ended.verdict),
        "exit": int(ended.exit),
        "error": None if error is None else _error_record(error),
        "now": ended.now,
        "spend": ended.spend.record() if ended.spend else None,
        "results": ended.results,
        "evidence": str(ended.sealed.evidence) if ended.sealed.evidence else None,
        "noEvidenceWhy": ended.sealed.why_not or None,
    }


def _error_record(error: BaseException) -> dict[str, str]:
    what, why, next_ = (str(getattr(error, name, "")) for name in ("what", "why", "next"))
    return {"type": type(error).__name__, "what": what or str(error), "why": why, "next": next_}


def _run_text(ended: Any, simulated: bool) -> str:
    parts: list[str] = []
    if simulated:
        parts.append(SIMULATED)
    if ended.results:
        from provisioner.report import tables

        parts.append(tables.results_text(ended.results))
    error = ended.error
    if isinstance(error, GpuleaseError):
        parts.append(error_text(error, ended.now))
    elif isinstance(error, Exception) and not isinstance(error, Cancelled):
        bug = f"a bug in gpulease: {type(error).__name__}: {error}"
        parts.append(
            error_text(GpuleaseError(bug, why="".join(traceback.format_exception(error)), next="report it with the lines above"), ended.now)
        )
    elif error is not None:
        parts.append(error_text(GpuleaseError(f"stopped: {error}", next=f"gpulease report {ended.lease}"), ended.now))
    parts.append(
        "\n".join(
            line
            for line in (
                f"verdict   {ended.verdict}: {ended.now}",
                f"cost      {_cost_text(ended.spend)}" + (", SIMULATED" if simulated else ""),
                f"proof     {ended.sealed.evidence}" if ended.sealed.evidence else f"no proof  {ended.sealed.why_not}",
            )
        )
    )
    return "\n\n".join(parts)


def _cost_text(spend: cost.Spend | None) -> str:
    if spend is None:
        return "cannot be told: no price is known for what was there"
    return f"{cost.show(spend.best)} ({cost.show(spend.lo)} to {cost.show(spend.hi)}, public list price)"


def list_table(every: bool) -> Answer:
    rows, records = [], []
    for folder in ledger.folders():
        stands = ledger.standing(folder)
        if not every and not stands.open and not stands.alive:
            continue
        genesis: dict[str, Any] = next((e["body"] for e in stands.entries if e["kind"] == "genesis"), {})
        state = (
            "alive"
            if stands.alive
            else "broken"
            if stands.broken
            else "released"
            if not stands.open
            else f"ORPHANED ({stands.held.verdict or 'no verdict'})"
        )
        spent = closing.spent(stands.entries)
        records.append(
            {
                "lease": folder.id,
                "state": state,
                "provider": genesis.get("provider"),
                "simulated": bool(genesis.get("simulated")),
                "deadline": genesis.get("deadline"),
                "verdict": str(stands.held.verdict) if stands.held.verdict else None,
                "spentBestMicroUsd": spent.best if spent else None,
                "spentHiMicroUsd": spent.hi if spent else None,
                "broken": stands.broken or None,
            }
        )
        what = genesis.get("offer", {}).get("type", "?") + (" SIMULATED" if genesis.get("simulated") else "")
        rows.append([folder.id, state, what, (genesis.get("deadline") or "?")[:16].replace("T", " "), cost.show(spent.best) if spent else "?"])
    text = (
        table(rows, ("lease", "state", "machine", "deadline (UTC)", "spent"))
        if rows
        else ("no leases" if every else "nothing is held; --all shows what was")
    )
    return {"schema": "gpulease/ls/1", "leases": records}, text


def release_lease(name: str, patience: float) -> Coded:
    folder = ledger.find(name)
    scope = Scope()
    try:
        journal = ledger.adopt(folder, "release")
    except ledger.Busy as e:
        raise RefusedError(e.what, why=e.why, next="stop it with Ctrl-C or SIGTERM: it then lets go itself") from e
    story = Story()
    with signals(scope, lambda text: cry(f"{text}: this goes on until the machine is gone, or for {patience:.0f} s at most")):
        verdict = closing.let_go(folder, journal, patience=patience, tell=lambda text: story.tell("release", text))
    entries = ledger.standing(folder).entries
    now = closing.now_line(entries)
    code = closing.exit_code(verdict, None, journal)
    record = {
        "schema": "gpulease/release/1",
        "lease": folder.id,
        "verdict": str(verdict),
        "now": now,
        "exit": int(code),
        "evidence": str(folder.evidence),
    }
    return int(code), record, f"verdict   {verdict}: {now}\nproof     {folder.evidence}"


def reap_leases(names: list[str], go: bool, region: str | None, aws_profile: str | None, endpoint: str | None) -> Coded:
    from provisioner.reap import reap

    settings = {"region": region or default_region(aws_profile), "profile": aws_profile, "endpoint": endpoint}
    found = reap(providers.connect("aws", settings), names, go=go)
    rows = [
        [
            f.lease,
            f.state,
            f.deadline[:16].replace("T", " "),
            f"{len(f.resources)}: {', '.join(sorted({r.kind for r in f.resources}))}",
            f.said,
        ]
        for f in found
    ]
    text = table(rows, ("lease", "state", "deadline (UTC)", "resources", "")) if rows else f"nothing of gpulease's in {settings['region']}"
    if not go and any(f.due for f in found):
        text += "\n\nnothing was touched; `gpulease reap --go` lets go of what is overdue"
    code = int(closing.worst([f.verdict for f in found]))
    record = {"schema": "gpulease/reap/1", "region": settings["region"], "went": go, "leases": [f.record() for f in found], "exit": code}
    return code, record, text


def show_proof(name: str | None, path_only: bool, recheck: bool) -> Coded:
    from provisioner.evidence import verify

    folder = newest(name)
    if path_only:
        return 0, {"path": str(folder.evidence)}, str(folder.evidence)
    if not folder.evidence.is_dir():
        stands = ledger.standing(folder)
        raise RefusedError(
            f"lease {folder.id} has no proof yet",
            why="somebody still holds it" if stands.alive else "whoever held it ended before it was sealed",
            next="gpulease ls" if stands.alive else f"gpulease release {folder.id}",
        )
    if recheck:
        return _recheck(folder)
    report = verify.verify(folder.evidence)
    text = (folder.evidence / "report.md").read_text(encoding="utf-8")
    return 0, {"schema": "gpulease/proof/1", "path": str(folder.evidence), "verify": report.json()}, text


def _recheck(folder: ledger.LeaseFolder) -> Coded:
    """Ask the provider now. It adds an observation to the journal, and a new proof over it."""
    journal = ledger.adopt(folder, "recheck")
    verdict = closing.let_go(folder, journal, patience=30.0)
    code = closing.MONEY.get(verdict, Exit.OK)
    now = closing.now_line(ledger.standing(folder).entries)
    return (
        int(code),
        {"schema": "gpulease/recheck/1", "lease": folder.id, "verdict": str(verdict), "now": now},
        f"verdict   {verdict}: {now}",
    )


def verify_proof(path: Path, require: str) -> Coded:
    from provisioner.evidence import verify

    report = verify.verify(path, require=require)
    return report.exit, report.json(), report.text()


def report_leases(names: list[str]) -> Answer:
    from provisioner import report
    from provisioner.report import tables

    folders = [ledger.find(name) for name in names] or [newest(None)]
    records = [report.load(folder.path) for folder in folders]
    return {"schema": "gpulease/report/1", "leases": [r.record() for r in records]}, tables.report_text(records)


def shipped(what: str, name: str | None) -> str:
    """The shipped thing itself, so that it can be copied and changed; or the list of them."""
    from provisioner.data import folder
    from provisioner.evals import cases
    from provisioner.remote import playbook

    kinds = {"profile": profile.names, "playbook": playbooks, "eval": cases.names, "provider": providers.names}
    singular = what.removesuffix("s")
    if what == "schema":
        schemas: Mapping[str, Callable[[], dict[str, Any]]] = {
            "profile": profile.schema,
            "playbook": playbook.schema,
            "predicate": _predicate,
        }
        if name is None or name not in schemas:
            raise UsageError(
                f"there is no schema called {name!r}", why=f"there are: {', '.join(schemas)}", next="gpulease show schema profile"
            )
        return json.dumps(schemas[name](), indent=2)
    if singular not in kinds:
        raise UsageError(
            f"nothing shipped is called {what!r}",
            why="there are: profiles, playbooks, evals, providers, schema",
            next="gpulease show profiles",
        )
    known = kinds[singular]()
    if name is None:
        return "\n".join(known)
    if singular == "provider":
        raise UsageError("a provider is code, not a file", next="docs/providers.md")
    if name not in known:
        raise UsageError(f"no {singular} is called {name!r}", why=f"there are: {', '.join(known)}", next=f"gpulease show {singular}s")
    where = {
        "profile": folder("profiles") / f"{name}.yaml",
        "playbook": folder("playbooks") / f"{name}.yaml",
        "eval": folder("profiles") / "evals" / f"{name}.jsonl",
    }
    return where[singular].read_text(encoding="utf-8").rstrip("\n")


def playbooks() -> list[str]:
    from provisioner.data import folder

    return sorted(item.name.removesuffix(".yaml") for item in folder("playbooks").iterdir() if item.name.endswith(".yaml"))


def open_ssh(name: str, command: list[str]) -> int:
    """Replace this process by the system's ssh, caged: the pinned host key, one key, no agent, no config file."""
    folder = ledger.find(name)
    access = Access(**{k: v for k, v in folder.card().get("access", {}).items() if k in ("user", "port")})
    address = _address(folder)
    host_key = (folder.path / "keys" / "host_ed25519.pub").read_text().strip()
    settings = folder.card()["settings"]
    where, port = address, access.port
    if settings.get("endpoint"):
        from provisioner.rehearsal.client import attach

        where, port = attach(settings["endpoint"]).route(address, port)
    known = folder.path / "keys" / "known_hosts"
    ledger.write_private(known, f"[{where}]:{port} {host_key}\n".encode() if port != 22 else f"{where} {host_key}\n".encode())
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", str(folder.path / "keys" / "client_ed25519"), "-p", str(port)]
    try:
        os.execvp("ssh", ["ssh", *options, f"{access.user}@{where}", *command])
    except FileNotFoundError:
        raise RefusedError("there is no ssh on this machine", next="install the OpenSSH client") from None


def show_logs(name: str | None, lines: int) -> str:
    from provisioner.clean import clean_lines

    folder = newest(name)
    parts = []
    for file, what in (("server.log", "inference server"), ("watchdog.log", "watchdog")):
        path = folder.path / file
        if path.is_file() and path.stat().st_size:
            parts += [f"== {what}: {path}", *clean_lines(path.read_text("utf-8", "replace"), last=lines)]
    return "\n".join(parts) or f"lease {folder.id} left no logs: its server never started"


def serve_rehearsal(port: int, faults: str | None, idle_exit: int) -> int:
    from provisioner.rehearsal import serve

    argv = ["--state", str(rehearsal_folder()), "--port", str(port), "--idle-exit", str(idle_exit or "inf")]
    return serve.main(argv + (["--faults", faults] if faults else []))


def newest(name: str | None) -> ledger.LeaseFolder:
    if name is not None:
        return ledger.find(name)
    every = list(ledger.folders())
    if not every:
        raise RefusedError(
            "there are no leases here yet", why=f"looked in {ledger.root() / 'runs'}", next="gpulease run smoke --rehearse --yes"
        )
    return every[-1]


def _address(folder: ledger.LeaseFolder) -> str:
    for entry in reversed(ledger.standing(folder).entries):
        if entry["kind"] in ("observe", "done") and entry["body"].get("class") in ("instance", "host-lock"):
            if entry["body"].get("phase") not in ("here", "coming"):
                break
            if address := entry["body"].get("facts", {}).get("address"):
                return str(address)
    raise RefusedError(f"lease {folder.id} has no machine now", why="its journal shows none that is running", next="gpulease ls --all")


def _predicate() -> dict[str, Any]:
    from provisioner.evidence import predicate

    return predicate.published()
