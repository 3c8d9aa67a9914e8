"""What a verification found, in words and as JSON. The first line names the tier; the next says what is not shown.

There is never one green tick: the line says which tier was reached, and where the statement claims more than could be checked
here, that too. SIMULATED comes before everything else, because a rehearsal's proof has the same form as a real one's.
"""

from __future__ import annotations

from provisioner.evidence import bill, tiers, words
from provisioner.evidence.canonical import rfc3339
from provisioner.evidence.messages import UNREADABLE, UNTRUSTED
from provisioner.evidence.outcome import Report
from provisioner.evidence.tiers import NAMES
from provisioner.model import Json

SCHEMA = "gpulease/verify/1"


def text(report: Report) -> str:
    """The lines for a person, the verdict first."""
    first, *more = _verdict(report)
    lines = [f"VERDICT  {first}", *(f"         {line}" for line in more)]
    if report.predicate is not None and not _failed(report):
        lines.append(f"NOT SHOWN  {words.not_shown(report.predicate, but='not-billed-figures' if report.bill else '')}")
    lines.append("")
    lines += [f"{layer.name:<10} {layer.state}" + (f"  ({layer.why})" if layer.why else "") for layer in report.layers]
    lines += [f"{p.code}  {p.message}" for p in (*report.problems, *report.warnings)]
    lines += [f"NOTE  {name} is in the folder and the statement says nothing about it." for name in report.not_covered[:20]]
    return "\n".join(lines) + "\n"


def document(report: Report) -> dict[str, Json]:
    """The same for a program; fields are only ever added."""
    made: dict[str, Json] = {
        "schema": SCHEMA,
        "path": report.path,
        "exit": report.exit,
        "tier": NAMES.get(report.tier, "none"),
        "require": NAMES[report.require],
        "claimed": "none" if report.predicate is None else NAMES[tiers.claimed(report.predicate)],
        "verdict": _verdict(report),
        "keyid": words.text(report.keyid),
        "vouched": bool(report.vouched),
        "signer": words.text(report.vouched),
        "sshKey": report.ssh,
        "sigstore": None
        if report.keyless is None
        else {"identity": words.text(report.keyless.identity), "issuer": words.text(report.keyless.issuer)},
        "timestamp": None if report.stamp is None else {"at": rfc3339(report.stamp.at), "by": report.stamp.by},
        "layers": [{"name": layer.name, "state": layer.state} | ({"why": layer.why} if layer.why else {}) for layer in report.layers],
        "problems": [p.json() for p in report.problems],
        "warnings": [p.json() for p in report.warnings],
        "notCovered": report.not_covered,
    }
    if report.predicate is not None:
        run = report.predicate["run"]
        made |= {
            "run": run["id"],
            "simulated": report.predicate["simulated"],
            "bill": report.bill,
            "clean": report.predicate["clean"] and not _failed(report),
            "runVerdict": report.predicate["verdict"],
            "limits": [words.text(code) for code in report.predicate["limits"]],
        }
    return made


def _failed(report: Report) -> bool:
    return any(p.code not in UNTRUSTED for p in report.problems)


def _verdict(report: Report) -> list[str]:
    predicate = report.predicate
    mark = "" if predicate is None else words.simulated(predicate)
    if _failed(report):
        wrong = [p for p in report.problems if p.code not in UNREADABLE | UNTRUSTED]
        if not wrong:
            return [f"{mark}cannot be read. Nothing follows about the run."]
        return [
            f"{mark}NOT VERIFIED: {len(wrong)} contradiction{'s' if len(wrong) > 1 else ''}, listed below. Believe nothing in this bundle."
        ]
    assert predicate is not None
    first, *rest = words.verdict(predicate)
    key = f"the ssh key {report.ssh}" if report.ssh else f"the Ed25519 key {report.keyid[:16]}…"
    if report.vouched:
        by = f"vouched for as {words.text(report.vouched)}."
    else:
        by = "which no key that you named vouches for." if report.keyless else "which nobody you named vouches for."
    signer = f"Signed with {key}, {by}"
    named = [] if report.keyless is None else [report.keyless.sentence]
    billed = [] if report.bill is None else [bill.sentence(report.bill)]
    dated = [] if report.stamp is None else [report.stamp.sentence]
    return [f"{mark}{_reached(report)}. {first}", *rest, *billed, signer, *named, *dated]


def _reached(report: Report) -> str:
    if report.problems:
        means = {"E108": "dated by nobody whom you trust", "E112": "not signed by the sigstore identity that you named"}
        open_ = [means.get(p.code, "signed with a key that you do not trust") for p in report.problems]
        return f"intact, and {', and '.join(dict.fromkeys(open_))}"
    assert report.predicate is not None
    said = NAMES[report.tier]
    if not tiers.reaches(report.tier, report.require):
        said += f"; {NAMES[report.require]} was asked for and is not reached"
    claim = tiers.claimed(report.predicate)
    return said if tiers.reaches(report.tier, claim) else f"{said} (its maker says {NAMES[claim]}; that could not be checked here)"
