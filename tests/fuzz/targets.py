"""One function for each parser of strangers' bytes: it may refuse in its own words and in no other way.

Where the script in auditor/ reads the same thing, the two are held to each other: with no code in common, what one takes and
the other does not is a mistake of one of them. `seeds` are whole, honest inputs to begin with. What a rented machine and a cloud
say is in `machine`, what a user writes in `written`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from provisioner import clean
from provisioner.evals import client
from provisioner.evidence import (
    archive,
    bill,
    canonical,
    certificates,
    chain,
    cloudtrail,
    digests,
    identity,
    keyless,
    page,
    render,
    sign,
    sshsig,
    statement,
    timestamp,
)
from provisioner.evidence.canonical import Malformed
from provisioner.evidence.files import Unreadable
from provisioner.evidence.history import Nonsense
from provisioner.rehearsal import worthless
from tests.evidence import trail
from tests.evidence.amazon import signed
from tests.evidence.broken import TALES, chained, honest, payload
from tests.evidence.journals import LEASE, PRODUCER
from tests.evidence.test_auditor import auditor
from tests.fuzz import machine, written

KEPT = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]


@functools.cache
def given(tale: str) -> dict[str, Any]:
    predicate: dict[str, Any] = payload(honest(tale))["predicate"]
    return predicate


def of_json(data: bytes) -> None:
    try:
        value = canonical.loads(data)
    except Malformed:
        value = Malformed
    else:
        assert canonical.dumps(value) == data
    try:
        theirs = auditor.strict(data)
    except (ValueError, RecursionError):
        theirs = Malformed
    assert value is Malformed is theirs or (value == theirs and type(value) is type(theirs)), (value, theirs)


def of_any_json(data: bytes) -> None:
    try:
        canonical.parse(data)
    except Malformed:
        return


def of_journal(data: bytes) -> None:
    """The bytes of a journal: both readers find it whole, or neither does."""
    try:
        read = chain.read(data)
        ours = len(read.entries) if not read.torn else 0
    except chain.Broken:
        ours = 0
    try:
        theirs = len(auditor.chain(data, ours))
    except auditor.Bad as e:
        theirs = ours if e.code == "E204" else 0  # whose dates run backwards is for `verify` to say, after the chain
    assert ours == theirs, (ours, theirs)


def of_history(data: bytes) -> None:
    """Lines of kind, body and time, chained here: what both derive from them must be the same."""
    entries = []
    for line in data.splitlines()[:60]:
        try:
            said = canonical.parse(line)
        except Malformed:
            continue
        if isinstance(said, dict):
            entries.append({"at": {"wall": "2026-11-18T12:06:40.000Z"}, "kind": "stage", "v": 1, "body": {}} | said)
    try:
        journal = chained(entries)
        read = chain.read(journal).entries
    except (chain.Broken, ValueError, TypeError):
        return
    if not read:
        return
    try:
        made: Any = statement.build(read, {}, producer=PRODUCER)["predicate"]
    except Nonsense as e:
        made = "cost" if "no cost can be worked out" in e.problem.message else None
    try:
        told = auditor.Told([json.loads(line) for line in journal.splitlines()])
        derived = auditor.derived(told)
    except (auditor.Bad, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError):
        derived = None
    if made in ("cost", None):
        sealed = any(entry["kind"] == "seal" for entry in read)  # the files that a seal names are compared elsewhere
        assert made == "cost" or derived is None or sealed, journal
        return
    assert derived is not None, journal
    absent = {"unfiltered": ...}
    for name in auditor.COMPARED:
        auditor.compare((absent | made)[name], (absent | derived)[name], f"$.{name}")


def of_envelope(data: bytes) -> None:
    for raw, public in ((data, honest("normal")["signer.pub.json"]), (honest("normal")["statement.dsse.json"], data)):
        try:
            mine: Any = sign.opened(raw, public)
        except sign.Unsigned:
            mine = None
        try:
            theirs: Any = auditor.signed_payload(raw, public)
        except auditor.Bad:
            theirs = None
        assert mine == theirs


def of_identity(data: bytes) -> None:
    trusted = [worthless.CERTIFICATE.encode()]
    for read in (lambda: identity.verify(data, trusted), lambda: identity.peek(data)):
        with contextlib.suppress(identity.Forged):
            read()


def of_archive(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(data)
        file.flush()
        try:
            opened = archive.Archive(Path(file.name))
        except Unreadable:
            return
        try:
            for name in opened.names:
                assert not {"", ".", ".."} & set(name.split("/"))
                opened.read(name, 1 << 20)
        except Unreadable:
            return
        finally:
            opened.close()


def of_ssh_signature(data: bytes) -> None:
    try:
        sshsig.checked(data, b"message")
    except sign.Unsigned:
        return


def of_signers(data: bytes) -> None:
    try:
        read = sshsig.signers(data.decode("utf-8", "replace"))
    except sshsig.BadSigners:
        return
    for signer in read:
        signer.then(0), signer.may(sshsig.ed25519(bytes(32)))


def of_events(data: bytes) -> None:
    try:
        events = cloudtrail.looked_up({cloudtrail.EVENTS: data})
    except Malformed:
        return
    cloudtrail.compare(given("recorded"), ["0" * 32], events)


def of_digest(data: bytes) -> None:
    """A digest and a log file of one content, packed here."""
    aws = {name: raw for name, raw in honest("corroborated").items() if name.startswith("aws/")}
    names = sorted(name for name in aws if name.startswith(digests.DIGESTS) and name.endswith(".gz"))
    logs = sorted(name for name in aws if name.startswith(digests.LOGS))
    for name in (names[0], names[0].removesuffix(".json.gz") + ".sig.json", logs[0]):
        whole = aws | {name: gzip.compress(data, 1, mtime=0) if name.endswith(".gz") else data}
        found = digests.chained(whole, ["us-east-1"], 1763467200000, 1763470800000)
        digests.signed(found, [certificates.simulated_key()])
        cloudtrail.compare(given("corroborated"), ["0" * 32], found.events)


def of_packed(data: bytes) -> None:
    try:
        digests.inflated(data)
    except Malformed:
        return


def of_public_keys(data: bytes) -> None:
    try:
        digests.keys_of(data)
    except ValueError:
        return


def of_bill(data: bytes) -> None:
    try:
        made = bill.build(given("normal"), b"envelope", data)
    except Nonsense:
        return
    bill.sentence(made["predicate"])


def of_results(data: bytes) -> None:
    """Whatever stands in results.json, the page is made of it or without it, and has no element in it that is not ours."""
    made = {"_type": statement.TYPE, "predicateType": statement.PREDICATE, "subject": [], "predicate": given("normal")}
    shown = page.page(made, data).lower()
    assert b"<script" not in shown and b"javascript:" not in shown and b" onerror=" not in shown
    assert b"\x1b" not in render.report(made, data)


def of_timestamp(data: bytes) -> None:
    try:
        timestamp.checked(data, b"statement", [STAMPED["root"]])
    except (timestamp.Foreign, timestamp.Unvouched):
        return


def of_sigstore_bundle(data: bytes) -> None:
    """Ours first, then the library's: asked for by everybody, so that all of it is read."""
    for asked in (keyless.Asked("a", "b"), _identity()):
        try:
            signed = keyless.checked(data, b"statement", b"{}", asked)
        except (keyless.Foreign, keyless.Unvouched):
            continue
        assert signed == keyless.checked(STAMPED["bundle"], b"statement", b"{}", _identity())


@functools.cache
def _identity() -> keyless.Asked:
    with tempfile.NamedTemporaryFile() as file:
        file.write(STAMPED["roots"])
        file.flush()
        return keyless.Asked("alice@example.org", "https://issuer.example.org", keyless.trusted_root(Path(file.name)))


def of_answer(data: bytes) -> None:
    """An HTTP answer is the same however it was cut."""
    limits = dict(client.LIMITS)
    whole, cut = client.Answer(limits), client.Answer(limits)
    whole.feed(1, data)
    whole.close(2)
    for n in range(0, len(data), 7):
        cut.feed(1, data[n : n + 7])
    cut.close(2)
    assert (whole.error, whole.status, whole.text, whole.tokens_out) == (cut.error, cut.status, cut.text, cut.tokens_out)


def of_text(data: bytes) -> None:
    shown = clean.clean(data.decode("utf-8", "replace"), limit=500)
    blanks = "".join(" " if unicodedata.category(char) == "Zs" else char for char in shown)  # a blank of another width is one
    assert len(shown.splitlines()) <= 1 and blanks.isprintable() and clean.clean(shown) == shown


def of_time(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    ours = canonical.milliseconds(text)
    assert ours == auditor.ms(text)
    assert ours is None or canonical.milliseconds(canonical.rfc3339(ours)) == ours


TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("of_"): made for name, made in sorted((globals() | vars(machine) | vars(written)).items()) if name.startswith("of_")
}


def _stamped() -> dict[str, bytes]:
    kept = KEPT / "stamped.json"
    return {name: base64.b64decode(text) for name, text in json.loads(kept.read_text()).items()} if kept.is_file() else {}


STAMPED = _stamped()
"""Signatures of b"statement", made once, because each time is another: a timestamp by openssl and its root, a sigstore bundle by the
service of tests/evidence/sigstore_service.py and its roots."""


def _told(tale: str) -> bytes:
    lines = [json.loads(line) for line in honest(tale)["journal.jsonl"].splitlines()]
    return b"\n".join(json.dumps({name: line[name] for name in ("at", "body", "kind")}).encode() for line in lines)


def seeds(name: str) -> Iterable[bytes]:
    """Honest inputs of that parser."""
    bundle, aws = honest("normal"), honest("corroborated")
    match name:
        case "json" | "any_json":
            return [canonical.dumps(payload(bundle)), b'{"a":[1,true,null,"\\u00e9"]}', b"-1", b'"x"']
        case "journal":
            return [honest(tale)["journal.jsonl"] for tale in ("never_launched", "held")]
        case "history":
            return [_told(tale) for tale in TALES]
        case "envelope":
            return [bundle["statement.dsse.json"], bundle["signer.pub.json"]]
        case "identity":
            return [signed()]
        case "archive":
            return [archive.packed({"journal.jsonl": b"x", "aws/iid/i.p7": b"y" * 40}, f"{LEASE}.evidence")]
        case "ssh_signature":
            return [b"-----BEGIN SSH SIGNATURE-----\n" + base64.encodebytes(b"SSHSIG" + bytes(120)) + b"-----END SSH SIGNATURE-----\n"]
        case "signers":
            line = sshsig.ed25519(bytes(32)).line
            return [f'alice@example.org,bob namespaces="{sshsig.NAMESPACE}",valid-after="20260101Z" {line} note\n# x\n'.encode()]
        case "events":
            return [trail.copied(trail.events(trail.rehearsed()))[cloudtrail.EVENTS]]
        case "digest":
            return [
                gzip.decompress(d) if n.endswith(".gz") else d for n, d in aws.items() if n.startswith("aws/cloudtrail/") and len(d) < 9000
            ]
        case "packed":
            return [gzip.compress(b"{}", mtime=0)]
        case "public_keys":
            return [b'{"PublicKeyList":[{"Value":"MIIB"}]}']
        case "bill":
            row = {"Groups": [{"Keys": ["i"], "Metrics": {"UnblendedCost": {"Amount": "0.1", "Unit": "USD"}}}], "Estimated": True}
            return [canonical.dumps({"resources": [], "results": [row], "retrievedAt": "2026-11-18T11:08:00Z"})]
        case "results":
            return [bundle["results.json"]]
        case "timestamp":
            return [STAMPED["token"]]
        case "sigstore_bundle":
            return [STAMPED["bundle"]]
        case "answer":
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            event = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
            return [head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event)]
        case "text":
            return ["a\x1b[31mb\x1b]0;t\x07\u202e".encode()]
        case "time":
            return [b"2026-11-18T11:08:00.123Z"]
        case _:
            return [*machine.seeds(name), *written.seeds(name)]


def kept(name: str) -> list[bytes]:
    """What the fuzzer found worth keeping, and what once broke something."""
    file = KEPT / f"{name}.json"
    return [base64.b64decode(text) for text in json.loads(file.read_text())] if file.is_file() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    text = json.dumps([base64.b64encode(data).decode() for data in sorted(set(inputs), key=lambda d: (len(d), d))], indent=0)
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{name}.json").write_text(text + os.linesep)
