"""Takes a bundle apart and says what holds: offline, bounded, and without believing anything it has not checked.

The layers run in order, each as far as the ones before it allow: files, signature, schema, digests, journal, statement,
anchors, identity, cloudtrail, cost, rendering, bill, timestamp, sigstore (what lies beside the client's own word is in
`beside`). A layer stops at its first failure; the others still run, and all are reported. Nothing is parsed before its
signature was checked, and then it is the signed bytes that are parsed.

The idea that carries it: the statement is derived once more from the journal, by the very function that made it, and
every field is compared. So the key's owner cannot sign a field that the journal does not lead to. The owner can write
another journal; that is why the first line names the tier, and the next one what is not shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from provisioner.errors import UsageError
from provisioner.evidence import beside, besides, bill, chain, keyless, listprice, page, render, sign, sshsig, timestamp
from provisioner.evidence.archive import Archive
from provisioner.evidence.canonical import Malformed, loads
from provisioner.evidence.compare import different, dotted, record_of
from provisioner.evidence.corroboration import unchecked
from provisioner.evidence.files import NAME, Folder, Source, Unreadable
from provisioner.evidence.findings import examine
from provisioner.evidence.history import FOREIGN, Nonsense, provider_date, read
from provisioner.evidence.listprice import Lists
from provisioner.evidence.messages import Problem, problem, shown
from provisioner.evidence.outcome import Layer, Report
from provisioner.evidence.predicate import STATEMENT, opened
from provisioner.evidence.schema import first_error
from provisioner.evidence.sshsig import Signer
from provisioner.evidence.statement import PREDICATE, SCHEMA_MINOR, derived
from provisioner.evidence.tiers import TIERS
from provisioner.evidence.trust import vouched_by
from provisioner.evidence.work import Failed, Skipped, Work
from provisioner.journal import Entry
from provisioner.model import Json

LAYERS = (
    "files",
    "signature",
    "schema",
    "digests",
    "journal",
    "statement",
    "anchors",
    "identity",
    "cloudtrail",
    "cost",
    "rendering",
    "bill",
    "timestamp",
    "sigstore",
)
RENDERED: dict[str, Callable[[Json, bytes | None], bytes]] = {"report.html": page.page, "report.md": render.report}
OWN = frozenset(
    {"statement.dsse.json", "statement.sshsig", "signer.pub.json", timestamp.FILE, keyless.FILE, bill.ENVELOPE, bill.FILE, *RENDERED}
)
LATER = opened(STATEMENT)
NOT_DERIVED = frozenset({"cost", "schemaMinor", "rendererVersion", "supersedes"})
AWS_LIMIT = 64 << 20
"""Of one file under aws/: CloudTrail's log files of a busy account are the largest."""
SKEW_MS = 2000
"""Two front ends of one provider may be a second apart, and their dates are whole seconds."""


def verify(
    path: Path,
    require: str = "client",
    trusted_keys: Collection[str] | None = None,
    signers: Sequence[Signer] | None = None,
    *,
    certificates: Sequence[bytes] = (),
    cloudtrail_keys: Sequence[bytes] = (),
    authorities: Sequence[bytes] = (),
    sigstore: keyless.Asked | None = None,
    lists: Lists | None = None,
) -> Report:
    """Check the bundle in that folder. `trusted_keys` are key ids, `signers` the lines of an allowed_signers file; with
    neither any key is accepted, and the report says that nobody vouches for it. `certificates` (PEM) are trusted for
    identity documents beside those that ship; `cloudtrail_keys` (DER) are AWS's, fetched by whoever verifies; `authorities`
    (PEM) the roots of those whose timestamps count; `sigstore` the one identity whose signature through sigstore is asked for;
    `lists` what the prices are held against, nothing without it."""
    if require not in TIERS:
        raise UsageError(
            f"there is no tier {require!r}", why=f"there are: {', '.join(TIERS)}", next="gpulease verify PATH --require client"
        )
    report = Report(shown(str(path)), require)
    try:
        folder = _source(path)
    except Unreadable as e:
        report.problems.append(e.problem)
        report.layers = [Layer("files", "failed"), *(Layer(name, "not run", "nothing could be read") for name in LAYERS[1:])]
        return report
    with contextlib.closing(folder):
        work = Work(folder, report, None if trusted_keys is None else frozenset(trusted_keys), signers)
        work.certificates, work.cloudtrail_keys = certificates, cloudtrail_keys
        work.authorities, work.sigstore, work.lists = authorities, sigstore, lists
        for name in LAYERS:
            report.layers.append(_run(_STEPS[name], name, work))
    return report


def _source(path: Path) -> Source:
    if path.name == "statement.dsse.json":
        path = path.parent
    return Folder(path) if path.is_dir() or not path.exists() else Archive(path)


def _run(step: Callable[[Work], None], name: str, work: Work) -> Layer:
    try:
        step(work)
    except Skipped as e:
        return Layer(name, "not run", str(e))
    except Failed as e:
        work.report.problems += e.problems
    except (Unreadable, chain.Broken, Nonsense, sign.Unsigned) as e:
        work.report.problems.append(e.problem)
    else:
        return Layer(name, "ok")
    return Layer(name, "failed")


def _files(work: Work) -> None:
    wanted = {
        "statement.dsse.json": sign.ENVELOPE_LIMIT,
        "statement.sshsig": sshsig.LIMIT,
        "signer.pub.json": sign.PUBLIC_LIMIT,
        "journal.jsonl": chain.FILE_LIMIT,
    }
    failed: list[Problem] = []
    for name, limit in wanted.items():
        try:
            work.raw[name] = work.folder.read(name, limit)
        except Unreadable as e:
            # A journal that is not there is for the digests to report: the statement names it.
            if name in work.folder.names or name == "statement.dsse.json":
                failed.append(e.problem)
    if failed:
        raise Failed(*failed)


def _signature(work: Work) -> None:
    if "statement.dsse.json" not in work.raw:
        raise Skipped("there is no statement to check")
    work.payload, work.report.keyid = sign.opened(work.raw["statement.dsse.json"], work.raw.get("signer.pub.json", b""))
    keys = [sshsig.ed25519(sign.raw_key(work.raw["signer.pub.json"]))]
    if "statement.sshsig" in work.raw:
        keys.append(sshsig.checked(work.raw["statement.sshsig"], sign.pae(work.payload)))
        work.report.ssh = keys[1].fingerprint
    work.report.vouched = vouched_by(work.payload, keys, work.report.keyid, work.trusted, work.signers)


def _schema(work: Work) -> None:
    if work.payload is None:
        raise Skipped("nothing is parsed before its signature is checked")
    try:
        statement = loads(work.payload)
    except Malformed as e:
        raise Failed(problem("E110", jsonpath="$", why=str(e))) from None
    if isinstance(statement, dict):
        uri = statement.get("predicateType")
        newer = re.fullmatch(re.escape(PREDICATE[:-1]) + r"([2-9]|[1-9]\d{1,3})", uri) if isinstance(uri, str) else None
        if newer is not None:
            raise Failed(problem("E111", uri=uri, v=newer[1]))
    predicate = statement.get("predicate") if isinstance(statement, dict) else None
    minor = predicate.get("schemaMinor") if isinstance(predicate, dict) else None
    later = isinstance(minor, int) and not isinstance(minor, bool) and minor > SCHEMA_MINOR
    wrong = first_error(statement, LATER if later else STATEMENT)
    if wrong is not None:
        raise Failed(problem("E110", jsonpath=wrong[0], why=wrong[1]))
    names = [s["name"] for s in statement["subject"]]
    if names[0] != "journal.jsonl" or len(set(names)) != len(names) or OWN & set(names):
        raise Failed(problem("E110", jsonpath="$.subject", why="must name journal.jsonl first, and every other file once"))
    work.statement = statement
    work.report.predicate = statement["predicate"]


def _digests(work: Work) -> None:
    if work.statement is None:
        raise Skipped("there is no statement to compare with")
    failed: list[Problem] = []
    for subject in work.statement["subject"]:
        name, want = subject["name"], subject["digest"]["sha256"]
        try:
            got = _digest(work, name)
        except Unreadable as e:
            failed.append(e.problem)
            continue
        if got is None:
            failed.append(problem("E121", file=name))
        elif got != want:
            failed.append(problem("E120", file=name, got=got, want=want))
    named = {s["name"] for s in work.statement["subject"]}
    work.report.not_covered = [shown(name) for name in work.folder.names if name not in named | OWN]
    if failed:
        work.results = None
        raise Failed(*failed)


def _digest(work: Work, name: str) -> str | None:
    if name in work.raw:
        return hashlib.sha256(work.raw[name]).hexdigest()
    if name not in work.folder.names and NAME.fullmatch(name):
        return None
    if name == "results.json":
        work.results = work.folder.read(name, render.RESULTS_LIMIT)
        return hashlib.sha256(work.results).hexdigest()
    if name.startswith("aws/"):
        work.aws[name] = work.folder.read(name, AWS_LIMIT)
        return hashlib.sha256(work.aws[name]).hexdigest()
    return work.folder.sha256(name)


def _journal(work: Work) -> None:
    if "journal.jsonl" not in work.raw:
        raise Skipped("there is no journal")
    read_ = chain.read(work.raw["journal.jsonl"])
    if not read_.entries:
        raise Failed(problem("E001", path="journal.jsonl", reason="there is no whole record in it"))
    records = len(read_.entries) if work.statement is None else work.statement["predicate"]["journal"]["records"]
    if len(read_.entries) < records:
        last, sealed = len(read_.entries) - 1, records - 1
        raise Failed(problem("E202", n=last, m=sealed, cut=sealed - last))
    if read_.torn:
        raise Failed(problem("E203", seq=len(read_.entries), offset=len(work.raw["journal.jsonl"]) - len(read_.torn)))
    backwards = _backwards(read_.entries)
    if backwards is not None:
        raise Failed(backwards)
    work.chain = read_
    torn = [e for e in read_.entries if e["kind"] == "recovered" and "tornSha256" in e["body"]]
    if torn:
        work.report.warnings.append(problem("W201", n=len(torn), time=torn[0]["at"]["wall"]))


def _backwards(entries: tuple[Entry, ...]) -> Problem | None:
    """Answers whose own dates run backwards. A fact may be old news; the date of an answer may not."""
    latest: int | None = None
    if entries[0]["body"].get("provider") in FOREIGN:
        return None  # the clock of a lent machine may be set by its owner at any time
    for entry in entries:
        dated = "providerDate" in entry["body"] and entry["kind"] in ("done", "sweep")
        date = provider_date(entry) if dated else None
        if date is None:
            continue
        if latest is not None and date < latest - SKEW_MS:
            return problem("E204", seq=entry["seq"], d=(latest - date) // 1000, u=SKEW_MS // 1000)
        latest = date if latest is None else max(latest, date)
    return None


def _statement(work: Work) -> None:
    if work.statement is None or work.chain is None:
        raise Skipped("the statement and the journal are not both sound")
    predicate = work.statement["predicate"]
    entries = work.chain.entries
    history = work.history = read(entries)
    if predicate["clean"]:
        objections = () if (found := examine(history)).clean else found.objections()
        if objections:
            raise Failed(*objections[:20])
    files = {s["name"]: s["digest"]["sha256"] for s in work.statement["subject"][1:]}
    results = work.results if "evaluation" in predicate else None
    work.uncounted = "evaluation" in predicate and results is None
    if work.uncounted and "results.json" not in files:  # nobody else has said so: only subjects are looked for
        raise Failed(problem("E121", file="results.json"))
    why = unchecked(predicate["corroboration"]["iid"])
    known = work.chain.head, work.chain.sha256
    work.rebuilt = derived(history, known, files, producer=predicate["producer"], results=results, aws=work.aws, unchecked=why)
    later = predicate["schemaMinor"] > SCHEMA_MINOR
    # Results that cannot be read, or were changed, hide nothing else: all that does not come of them is compared.
    left = NOT_DERIVED | {"evaluation"} if work.uncounted else NOT_DERIVED
    rebuilt = {k: v for k, v in work.rebuilt["predicate"].items() if k not in left}
    stated = {k: v for k, v in predicate.items() if k not in left}
    if later:
        stated["limits"] = [code for code in stated["limits"] if code in rebuilt["limits"]]  # more of them claim less
    first = different(stated, rebuilt, later=later)
    if first is not None:
        path, a, b = first
        raise Failed(problem("E301", field=dotted(path), a=a, b=b, seq=record_of(path, work.rebuilt["predicate"], entries)))
    if work.uncounted:
        raise Skipped("all of it agrees but for the counts of the results, which are not there, or were changed")
    work.agreed = True
    work.report.warnings += besides.warnings(predicate)


def _anchors(work: Work) -> None:
    if work.statement is None or work.chain is None:
        raise Skipped("the statement and the journal are not both sound")
    for n, anchor in enumerate(work.statement["predicate"]["anchors"]):
        at = anchor["journalSeq"]
        entry = work.chain.entries[at] if at < len(work.chain.entries) else None
        if entry is None or not entry["prev"].startswith(anchor["headPrefix"]):
            raise Failed(problem("E512", n=n, h=anchor["headPrefix"]))


def _cost(work: Work) -> None:
    if work.rebuilt is None or work.statement is None:
        raise Skipped("the statement could not be derived again")
    stated, rebuilt = work.statement["predicate"]["cost"], work.rebuilt["predicate"]["cost"]
    first = different(stated, rebuilt, later=work.statement["predicate"]["schemaMinor"] > SCHEMA_MINOR)
    if first is not None:
        path, a, b = first
        name = dotted(path)
        if path[0] == "components" and len(path) > 1 and isinstance(path[1], int) and path[1] < len(rebuilt["components"]):
            row = rebuilt["components"][path[1]]
            name = f"{row['component']} {row['resource']} {dotted(path[2:])}"
        raise Failed(problem("E401", component=name, x=b, y=a))
    if work.lists is not None and work.history is not None:
        wrong, said = listprice.judged(work.history, work.lists, simulated=work.statement["predicate"]["simulated"])
        work.report.warnings += said
        if wrong:
            raise Failed(*wrong)


def _rendering(work: Work) -> None:
    if work.statement is None:
        raise Skipped("there is no statement to render")
    there = [name for name in RENDERED if name in work.folder.names]
    if not there:
        raise Skipped("there is no report")
    if work.statement["predicate"]["schemaMinor"] > SCHEMA_MINOR:
        raise Skipped("a later version rendered it")
    if work.statement["predicate"]["rendererVersion"] != render.VERSION:
        raise Skipped("another version rendered it: read the statement, not the report")
    given = {name: work.folder.read(name, render.REPORT_LIMIT) for name in there}
    if work.results is None and "results.json" in [s["name"] for s in work.statement["subject"]]:
        raise Skipped("the results that it shows are not there, or were changed")
    if not work.agreed:
        raise Skipped("the statement is not what its journal leads to")
    wrong = [problem("E701", file=name) for name in there if RENDERED[name](work.statement, work.results) != given[name]]
    if wrong:
        raise Failed(*wrong)


_STEPS: dict[str, Callable[[Work], None]] = {
    "files": _files,
    "signature": _signature,
    "schema": _schema,
    "digests": _digests,
    "journal": _journal,
    "statement": _statement,
    "anchors": _anchors,
    "identity": beside.identity,
    "cloudtrail": beside.cloudtrail,
    "cost": _cost,
    "rendering": _rendering,
    "bill": beside.bill,
    "timestamp": beside.timestamp,
    "sigstore": beside.sigstore,
}
