"""The layers about what lies beside the client's own word: identity documents, CloudTrail's material, the bill, a timestamp, sigstore.

Each says that it was not run where there is nothing of its kind, fails on what contradicts the statement, and otherwise adds
the tier that its material shows. What cannot be checked here (no certificate, no key) is a warning and no failure.
"""

from __future__ import annotations

from provisioner.evidence import bill as bills
from provisioner.evidence import identified, keyless, recorded, sign, tiers
from provisioner.evidence import timestamp as timestamps
from provisioner.evidence.canonical import Malformed, loads
from provisioner.evidence.cloudtrail import FOLDER
from provisioner.evidence.compare import different, dotted
from provisioner.evidence.corroboration import IDENTITY
from provisioner.evidence.messages import problem
from provisioner.evidence.schema import first_error
from provisioner.evidence.statement import heads
from provisioner.evidence.work import Failed, Skipped, Work


def identity(work: Work) -> None:
    if work.rebuilt is None or work.statement is None:
        raise Skipped("the statement could not be derived again")
    if not any(name.startswith(IDENTITY) for name in work.aws):
        raise Skipped("there is no identity document")
    whole, wrong, unknown = identified.doubts(work.statement["predicate"], work.aws, work.certificates)
    work.report.warnings += unknown
    if wrong:
        raise Failed(*wrong)
    if whole:
        work.report.shown.add("identified")


def cloudtrail(work: Work) -> None:
    if work.rebuilt is None or work.statement is None or work.history is None:
        raise Skipped("the statement could not be derived again")
    predicate = work.statement["predicate"]
    if not any(name.startswith(FOLDER) for name in work.aws):
        ours = predicate["run"]["provider"] == "aws" and not predicate["simulated"] and "never-launched" not in predicate["limits"]
        if ours and not work.uncounted:  # to a bundle with a file missing, nothing is to be added
            reason, tier = "nobody has asked for it yet", tiers.NAMES[tiers.claimed(predicate)]
            work.report.warnings.append(problem("W602", reason=reason, tier=tier, run=predicate["run"]["id"]))
        raise Skipped("there is no material of CloudTrail's")
    shown = recorded.examined(predicate, work.aws, heads(work.history), work.cloudtrail_keys)
    work.report.warnings += shown.open
    if shown.wrong:
        raise Failed(*shown.wrong[:20])
    work.report.shown |= shown.tiers


def bill(work: Work) -> None:
    if bills.ENVELOPE not in work.folder.names:
        raise Skipped("there is no second statement")
    if work.rebuilt is None or work.statement is None:
        raise Skipped("the first statement could not be derived again")
    raw = work.folder.read(bills.ENVELOPE, sign.ENVELOPE_LIMIT)
    payload, _ = sign.opened(raw, work.raw["signer.pub.json"])
    try:
        stated = loads(payload)
    except Malformed as e:
        raise Failed(problem("E110", jsonpath="$bill", why=str(e))) from None
    wrong = first_error(stated, bills.BILL, "$bill")
    if wrong is not None:
        raise Failed(problem("E110", jsonpath=wrong[0], why=wrong[1]))
    answer = work.folder.read(bills.FILE, bills.LIMIT)
    derived = bills.build(work.statement["predicate"], work.raw["statement.dsse.json"], answer)
    first = different(stated, derived)
    if first is not None:
        path, a, b = first
        raise Failed(problem("E403", field=dotted(path), a=a, b=b))
    work.report.bill = derived["predicate"]
    work.report.shown.add("billed")


def timestamp(work: Work) -> None:
    if timestamps.FILE not in work.folder.names:
        raise Skipped("there is no timestamp")
    if "statement.dsse.json" not in work.raw:
        raise Skipped("there is no statement that it could be of")
    token = work.folder.read(timestamps.FILE, timestamps.LIMIT)
    try:
        if not work.authorities:
            timestamps.about(token, work.raw["statement.dsse.json"])
            raise Unjudged("no certificate of the authority was given. Pass --tsa-cert with its root")
        work.report.stamp = timestamps.checked(token, work.raw["statement.dsse.json"], work.authorities)
    except timestamps.Foreign as e:
        raise Failed(problem("E107", why=str(e))) from None
    except timestamps.Unvouched as e:
        raise Failed(problem("E108", why=str(e))) from None
    except (timestamps.Missing, Unjudged) as e:
        work.report.warnings.append(problem("W107", why=str(e)))
        raise Skipped("it is not judged") from None


def sigstore(work: Work) -> None:
    there, asked = keyless.FILE in work.folder.names, work.sigstore
    if not there and asked is None:
        raise Skipped("there is no sigstore signature")
    if work.payload is None:
        raise Skipped("there is no signed statement that it could be of")
    try:
        if asked is None:
            keyless.about(_bundle(work), work.raw["statement.dsse.json"], work.payload)
            raise Unjudged("nobody said whose signature it should be. Pass --sigstore-identity and --sigstore-issuer")
        if not there:  # whoever asks for a signature is not told that all is well without one
            raise keyless.Unvouched(f"there is no {keyless.FILE}")
        work.report.keyless = keyless.checked(_bundle(work), work.raw["statement.dsse.json"], work.payload, asked)
    except keyless.Foreign as e:
        raise Failed(problem("E109", why=str(e))) from None
    except (keyless.Unvouched, keyless.Missing) as e:
        raise Failed(problem("E112", identity="" if asked is None else asked.identity, why=str(e))) from None
    except Unjudged as e:
        work.report.warnings.append(problem("W109", why=str(e)))
        raise Skipped("it is not judged") from None


def _bundle(work: Work) -> bytes:
    return work.folder.read(keyless.FILE, keyless.LIMIT)


class Unjudged(Exception):
    """There is one, and nothing to hold it against."""
