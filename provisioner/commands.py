"""What each command does, between the command line and floor 3: it gathers, calls, and turns the answer into text.

Each function returns (exit code,) a JSON document and the same as text. Nothing here knows typer; nothing below here
knows that there is a terminal.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cost
from provisioner import closing, ledger
from provisioner.afterwards import told
from provisioner.clean import clean
from provisioner.clouds import (
    Target,
    access_card,
    cloud_has_ended,
    launching,
    newest,
    planned,
    read_faults,
    rehearsal_folder,
)
from provisioner.errors import Exit, GpuleaseError, RefusedError, UsageError
from provisioner.lease import LINGER_S, PATIENCE_S
from provisioner.model import Verdict
from provisioner.render import SIMULATED, Story, cost_text, error_text
from provisioner.scope import Scope, cry, signals
from provisioner.terminal import complain

Answer = tuple[dict[str, Any], str]
Coded = tuple[int, dict[str, Any], str]


def run_profile(target: Target, *, ask: Callable[[str], bool] | None) -> Coded:
    from provisioner.run import run

    story, scope = Story(), Scope()

    def heard(text: str) -> None:
        cry(text.replace(" again", ": still letting go") if "again" in text else f"{text}: heard; the step in hand is broken off")

    with contextlib.ExitStack() as calm:
        with planned(target) as ready:
            complain(ready.plan_text())
            made = ready.plan
            question = f"about {cost.show(made.expected_micro_usd)}, at most {cost.show(made.at_most_micro_usd)}. Go? [y/N] "
            if ask is not None and not ask(question):
                raise RefusedError("not started", why="the question was not answered with yes", next="y starts it; --yes does not ask")
            access = launching(target, ready, complain)
            # Until here a signal ends the program at once. From here on it is the run's, also while its cloud is put away.
            calm.enter_context(signals(scope, heard))
            card = {"provider": ready.provider.name, "settings": ready.provider.settings(), "access": access_card(access)}
            folder = ledger.create(card | {"simulated": made.simulated})

            def watch(journal: Any) -> None:
                story.spent = lambda: cost.show(costs.best) if (costs := closing.spent(journal.entries)) else ""

            try:
                ended = run(
                    made,
                    ready.provider,
                    folder,
                    scope,
                    story.tell,
                    access=access,
                    keep_s=target.keep_s,
                    progress=story.progress,
                    waited=story.waited,
                    watch=watch,
                )
            finally:
                _forget_unbegun(folder)
        return int(ended.exit), _run_record(ended, made.simulated), _run_text(ended, made.simulated)


def _forget_unbegun(folder: ledger.LeaseFolder) -> None:
    """A lease whose first line never reached the disk asked for nothing: kept, it would be an orphan for ever."""
    with contextlib.suppress(OSError):
        stands = ledger.standing(folder)
        if not stands.broken and not any(entry["kind"] == "genesis" for entry in stands.entries):
            shutil.rmtree(folder.path)


def _run_record(ended: Any, simulated: bool) -> dict[str, Any]:
    error = told(ended.error, ended.lease, ended.exit)
    return {
        "schema": "gpulease/run/1",
        "simulated": simulated,
        "lease": ended.lease,
        "verdict": str(ended.verdict),
        "exit": int(ended.exit),
        "error": None if error is None else _error_record(error) | {"type": type(ended.error).__name__},
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
    if error := told(ended.error, ended.lease, ended.exit):
        parts.append(error_text(error, ended.now))
    elif ended.verdict is not Verdict.RELEASED:
        stays = GpuleaseError(f"letting go of {ended.lease} ended {ended.verdict}", next=f"gpulease release {ended.lease}")
        parts.append(error_text(stays, ended.now))
    if ended.exit is Exit.UNPROVEN and ended.verdict is Verdict.RELEASED:
        unrecorded = GpuleaseError(
            "everything was seen gone, and that could not be written down",
            why=ended.sealed.why_not,
            next=f"free some space, then: gpulease release {ended.lease}",
        )
        parts.append(error_text(unrecorded, ended.now))
    parts.append(
        "\n".join(
            line
            for line in (
                f"verdict   {ended.verdict}: {ended.now}",
                f"cost      {cost_text(ended.spend)}" + (", SIMULATED" if simulated else ""),
                f"proof     {ended.sealed.evidence}" if ended.sealed.evidence else f"no proof  {clean(ended.sealed.why_not)}",
            )
        )
    )
    return "\n\n".join(parts)


def release_lease(name: str, patience: float) -> Coded:
    folder = ledger.find(name)
    if ledger.standing(folder).held.verdict is Verdict.RELEASED and _has_ended(folder):
        return _released(folder, "gpulease/release/1", Verdict.RELEASED, int(Exit.OK))  # and nobody is left to ask once more
    _refuse_if_ended(folder, "released")
    story = Story()
    with signals(Scope(), lambda text: cry(f"{text}: this goes on until the machine is gone, or for {patience:.0f} s at most")):
        try:
            journal = ledger.adopt(folder, "release")
            linger = LINGER_S if patience >= PATIENCE_S else 0.0  # whoever asked for less means it
            verdict = closing.let_go(folder, journal, patience=patience, linger=linger, tell=lambda text: story.tell("release", text))
        except ledger.Busy as e:
            raise RefusedError(e.what, why=e.why, next="stop it with Ctrl-C or SIGTERM: it then lets go itself") from e
        except (GpuleaseError, OSError) as e:
            return _could_not_look(folder, e)
        code = closing.exit_code(verdict, None, journal)
    return _released(folder, "gpulease/release/1", verdict, int(code))


def _released(folder: ledger.LeaseFolder, schema: str, verdict: Verdict, code: int) -> Coded:
    entries = ledger.standing(folder).entries
    now, simulated = closing.now_line(entries), any(e["kind"] == "genesis" and e["body"].get("simulated") for e in entries)
    proof = str(folder.evidence) if (folder.evidence / "statement.dsse.json").is_file() else None
    record = {"schema": schema, "lease": folder.id, "verdict": str(verdict), "now": now, "exit": code, "evidence": proof}
    mark = f"{SIMULATED}\n\n" if simulated else ""
    return code, record | {"simulated": simulated}, f"{mark}verdict   {verdict}: {now}\nproof     {proof or 'none could be written'}"


def _could_not_look(folder: ledger.LeaseFolder, e: GpuleaseError | OSError) -> Coded:
    """What keeps us from letting go is an error about money: the machine does not wait until it is put right."""
    trouble = e if isinstance(e, GpuleaseError) else GpuleaseError(f"this machine would not: {e}", next=f"df -h {folder.path}")
    entries: list[Any] = []
    with contextlib.suppress(GpuleaseError, OSError):
        entries = ledger.standing(folder).entries
    now = closing.now_line(entries) if entries else "assume it is running: its journal cannot be read"
    code = int(Exit.UNPROVEN)
    record = {"schema": "gpulease/release/1", "lease": folder.id, "verdict": str(Verdict.UNPROVEN), "now": now, "exit": code}
    return code, record | {"error": _error_record(trouble)}, error_text(trouble, now)


def _refuse_if_ended(folder: ledger.LeaseFolder, what: str) -> None:
    """A rehearsal whose cloud is gone cannot be asked any more, and was never money: say so at once, and leave its proof alone."""
    if not _has_ended(folder):
        return
    last = next((e for e in reversed(ledger.standing(folder).entries) if e["kind"] == "verdict"), None)
    seen = f"last seen {last['body']['verdict']} at {last['at']['wall'][:19]}Z" if last else "nobody saw it go"
    raise RefusedError(
        f"lease {folder.id} cannot be {what}: its rehearsal cloud has ended, and everything in it with it",
        why=f"SIMULATED; nothing of it was a machine or cost money. {seen[0].upper()}{seen[1:]}",
        next=f"gpulease proof {folder.id}" if folder.evidence.is_dir() else "gpulease ls --all",
    )


def _has_ended(folder: ledger.LeaseFolder) -> bool:
    with contextlib.suppress(GpuleaseError):  # without a card the journal may still say where to ask
        return not ledger.alive(folder) and cloud_has_ended(folder.card()["settings"])
    return False


def show_proof(name: str | None, path_only: bool, recheck: bool) -> Coded:
    from provisioner.evidence import verify

    folder = newest(name)
    if not folder.evidence.is_dir():
        stands = ledger.standing(folder)
        raise RefusedError(
            f"lease {folder.id} has no proof yet",
            why="somebody still holds it" if stands.alive else "whoever held it ended before it was sealed",
            next="gpulease ls" if stands.alive else f"gpulease release {folder.id}",
        )
    if path_only:
        return 0, {"schema": "gpulease/proof/1", "path": str(folder.evidence), "verify": None}, str(folder.evidence)
    if recheck:
        return _recheck(folder)
    report = verify.verify(folder.evidence)
    record = {"schema": "gpulease/proof/1", "path": str(folder.evidence), "verify": report.json()}
    if report.exit:
        return int(Exit.FAILED), record, report.text()  # a page that does not follow from what was signed is not shown
    page = (folder.evidence / "report.md").read_text(encoding="utf-8")
    return 0, record, page.replace("&#39;", "'").replace("&quot;", '"')  # quotes mean nothing in Markdown; the file has them for HTML


RECHECK_S = 30.0


def _recheck(folder: ledger.LeaseFolder) -> Coded:
    """Ask the provider now. It adds an observation to the journal, and a new proof over it."""
    _refuse_if_ended(folder, "looked at again")
    with signals(Scope(), lambda text: cry(f"{text}: this ends within {RECHECK_S:.0f} s")):
        journal = ledger.adopt(folder, "recheck")
        verdict = closing.let_go(folder, journal, patience=RECHECK_S, linger=0.0, tell=lambda text: Story().tell("recheck", text))
        code = closing.exit_code(verdict, None, journal)
    return _released(folder, "gpulease/recheck/1", verdict, int(code))


def verify_proof(
    path: Path,
    require: str,
    allowed_signers: Path | None = None,
    certificates: Sequence[Path] = (),
    cloudtrail_keys: Path | None = None,
    online: bool = False,
    aws_profile: str | None = None,
    authorities: Sequence[Path] = (),
    identity: str | None = None,
    issuer: str | None = None,
    trust_root: Path | None = None,
) -> Coded:
    from provisioner.evidence import digests, sshsig, verify
    from provisioner.list_prices import lists

    def given(file: Path | None, why: str, read: Callable[[bytes], Any]) -> Any:
        try:
            return None if file is None else read(file.read_bytes()[: sshsig.SIGNERS_LIMIT])
        except (OSError, ValueError) as e:
            raise UsageError(f"{file} cannot be used: {e}", why=why, next="docs/proof.md") from None

    signers = given(allowed_signers, "it says whose signature is accepted", lambda raw: sshsig.signers(raw.decode("utf-8")))
    keys = given(cloudtrail_keys, "it holds the keys that AWS signs CloudTrail's digests with", digests.keys_of) or []
    roots = [given(file, "it is the root of a time-stamping authority", _pems) for file in authorities]
    pems = [given(file, "it is the certificate of an identity document", _pem) for file in certificates]
    if online:
        from provisioner.corroborate import public_keys

        keys = [*keys, *public_keys(verify.verify(path).predicate, aws_profile)]
    report = verify.verify(
        path,
        require=require,
        signers=signers,
        certificates=pems,
        cloudtrail_keys=keys,
        authorities=roots,
        sigstore=_asked(identity, issuer, trust_root),
        lists=lists(online, aws_profile),
    )
    return report.exit, report.json(), report.text()


def _asked(identity: str | None, issuer: str | None, trust_root: Path | None) -> Any:
    """Whose sigstore signature is asked for, and under which roots; None where nobody asked."""
    from provisioner.evidence import keyless

    if identity is None and issuer is None and trust_root is None:
        return None
    try:
        root = None if trust_root is None else keyless.trusted_root(trust_root)
    except keyless.Missing:
        root = None  # the layer says so, beside everything else that it found
    except (OSError, ValueError) as e:
        raise UsageError(
            f"{trust_root} cannot be used: {e}", why="it holds the roots of a sigstore service", next="docs/proof.md"
        ) from None
    try:
        return keyless.Asked(identity or "", issuer or "", root)
    except ValueError as e:
        why = "anybody can have a signature made; it says something when it is known whose it should be, and who confirms that"
        raise UsageError(str(e), why=why, next="gpulease verify PATH --sigstore-identity ID --sigstore-issuer URL") from None


def _pem(raw: bytes) -> bytes:
    from cryptography import x509

    x509.load_pem_x509_certificate(raw)
    return raw


def _pems(raw: bytes) -> bytes:
    from provisioner.evidence import timestamp

    timestamp.pems(raw)
    return raw


def report_leases(names: list[str]) -> Answer:
    from provisioner import report
    from provisioner.report import tables

    folders = [ledger.find(name) for name in names] or [newest(None)]
    records = [replace(report.load(folder.path), going_on=ledger.alive(folder)) for folder in folders]
    return {"schema": "gpulease/report/1", "leases": [r.record() for r in records]}, tables.report_text(records)


def serve_rehearsal(port: int, faults: str | None, idle_exit: int) -> int:
    from provisioner.rehearsal import serve

    read_faults(faults)
    argv = ["--state", str(rehearsal_folder()), "--port", str(port), "--idle-exit", str(idle_exit or "inf")]
    try:
        return serve.main(argv + (["--faults", faults] if faults else []))
    except SystemExit as e:
        # The server's library ends the program by itself when somebody has the port.
        raise RefusedError(f"no rehearsal could listen on port {port}", why="it is in use", next="--port 0 takes a free one") from e
