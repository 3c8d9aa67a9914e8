"""Every way a bundle can fail, and the exact words for it: one table, code to template.

The codes are a contract (`docs/proof.md`, scripts that read `--json`): a code is never reused for another meaning,
and a template's words change only with the code. Values put into a template come from a stranger's file, so
`problem` cleans and shortens each of them; nothing of the bundle reaches a terminal any other way.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.clean import clean
from provisioner.evidence.canonical import dumps
from provisioner.model import Json

TEMPLATES = {
    "E001": "cannot read {path}: {reason}. This says nothing about the run.",
    "E002": "{path} is larger than {limit}. Refused without reading it.",
    "E003": "{member}: unsafe name in the archive. Refused.",
    "E101": "signature does not match: statement.dsse.json was changed after it was signed, "
    "or the key {keyid} is not the one that signed it.",
    "E102": "no signature by a key you trust. Signed by {keyid}; trusted: {list}. "
    "The content may still be genuine; nobody you named vouches for it.",
    "E103": "the envelope is not in its one allowed form (at byte {n}). It was edited or re-saved.",
    "E104": "payload type {t} is not one this version understands ({list}).",
    "E105": "ssh signature: {principal} was not allowed to sign at {time} (valid {from_} to {to}).",
    "E106": "ssh signature: {why}. statement.sshsig does not belong to this statement.",
    "E107": "timestamp: {why}. statement.tsr does not belong to this statement.",
    "E108": "timestamp: not by an authority that you trust: {why}. The statement may still be genuine; nobody you named dates it.",
    "E109": "sigstore: {why}. statement.sigstore.json does not belong to this statement.",
    "E110": "schema: {jsonpath}: {why}.",
    "E111": "predicate {uri} is newer than this verifier. Install gpulease >= {v}.",
    "E112": "sigstore: no signature of {identity} that counts: {why}. "
    "The statement may still be genuine; that identity does not vouch for it.",
    "E120": "{file}: sha256 is {got}, the statement says {want}. The file was changed or swapped.",
    "E121": "{file} is named in the statement and is missing from the bundle.",
    "E201": "journal record {seq} (byte {off}): does not follow from record {before}. "
    "Records were changed, removed, inserted or reordered here.",
    "E202": "journal ends at record {n}, the sealed head is record {m}. {cut} record(s) were cut off.",
    "E203": "journal record {seq}: not in canonical form. It was re-saved by another program.",
    "E204": "journal record {seq}: time runs backwards by {d} s against AWS time, beyond the stated uncertainty of {u} s.",
    "E301": "{field} is {a} in the statement and {b} in journal record {seq}.",
    "E302": "intent {seq} ({op}) has no outcome. A proof cannot be clean with an open intent.",
    "E303": '"clean" is claimed, but {class_} was not checked in {region}: {reason}.',
    "E304": '"clean" is claimed on sweeps {s} s apart; at least {min} s are needed.',
    "E305": "{class_} {id} was created in record {seq} and nothing shows that it is gone.",
    "E401": "cost: {component} comes to {x} from the recorded times and price, the statement says {y}.",
    "E402": "cost: price {p} for {sku} is not AWS's public price on {date} ({q}).",
    "E403": "bill: {field} is {a} in the second statement; from the first one and AWS's answer it is {b}.",
    "E501": "identity document: not signed by AWS's {region} certificate: {why}.",
    "E502": "identity document names {field} {a}, the statement says {b}.",
    "E503": "identity document: launch {a}, statement {b}: {d} s apart.",
    "E512": "attestation {n} carries journal head {h}, which is not in this journal.",
    "E601": "CloudTrail digest {name}: {why}.",
    "E602": "CloudTrail log {name}: hash differs from the signed digest.",
    "E603": "CloudTrail has no {event} with request id {id} between {a} and {b}, and the digest chain there is complete. "
    "AWS did not receive that call.",
    "E604": "CloudTrail {event}: {field} is {a}, the statement says {b}.",
    "E605": "AWS recorded journal head {h} at {time} (request {id}). This journal has no such head: it was rewritten after that call.",
    "E606": "CloudTrail shows {event} creating {id} by this run, and the journal does not mention it.",
    "E701": "{file} is not what this statement renders to. Read the statement, not the report.",
    "W107": "timestamp: not judged: {why}.",
    "W109": "sigstore: not judged: {why}.",
    "W201": "journal: {n} torn line(s) repaired after a crash at {time}. Normal after power loss or kill.",
    "W301": "{n} new {class_} in {region}, not there before the launch and not known to be of this run: may be somebody else's.",
    "W302": "{n} {class_} of this run in {region}, "
    "shown after the verdict that called everything gone. Look again: gpulease proof --recheck",
    "W401": "cost: price {p} for {sku} was held against no list: {why}.",
    "W402": "cost: price {p} for {sku} is more than {n} times off the {q} of {date} that ships with gpulease. Ask AWS: verify --online.",
    "W403": "cost: price {p} for {sku} is of {date}; AWS's list says {q}, and has since {since}. What it said before cannot be asked here.",
    "W504": "identity document: not identified: no AWS certificate for {region} here (certificates of {date}). "
    "Pass --iid-cert with the one from {url}.",
    "W601": "CloudTrail digest chain has a gap {a} to {b}: nothing AWS-signed covers that time.",
    "W602": 'no CloudTrail material in the bundle: {reason}. Tier stays "{tier}". It can be added for 90 days: '
    "gpulease proof corroborate {run}",
    "W603": "call {op} (request {id}) is not in the CloudTrail material. AWS delivers records after 5 to 15 minutes, usually.",
    "W604": "CloudTrail digests: no public key of AWS's to check them with. Pass --cloudtrail-keys, from: "
    "aws cloudtrail list-public-keys --region {region}",
}

UNREADABLE = frozenset({"E001", "E002", "E003", "E111"})
"""These say that we could not look, not that something is wrong: exit 3."""

UNTRUSTED = frozenset({"E102", "E105", "E108", "E112"})
"""Intact, but not vouched for as asked: exit 2."""


@dataclass(frozen=True)
class Problem:
    """One finding. `seq` and `offset` are the journal record and its first byte, where there is one."""

    code: str
    message: str
    seq: int | None = None
    offset: int | None = None

    def json(self) -> dict[str, Json]:
        made: dict[str, Json] = {"code": self.code, "message": self.message}
        return made | ({} if self.seq is None else {"seq": self.seq}) | ({} if self.offset is None else {"offset": self.offset})


def problem(code: str, *, seq: int | None = None, offset: int | None = None, **values: object) -> Problem:
    """The message of that code, with the values in it cleaned."""
    if seq is not None:
        values["seq"] = seq
    return Problem(code, TEMPLATES[code].format(**{name: shown(value) for name, value in values.items()}), seq, offset)


def shown(value: object, limit: int = 200) -> str:
    """A value from a stranger's file, fit for one line of a terminal."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        try:
            text = dumps(value).decode()
        except (ValueError, TypeError, RecursionError):
            text = "(something that is not canonical JSON)"
    text = " ".join(clean(text[: 4 * limit]).split())
    return text if len(text) <= limit else text[:limit] + "…"
