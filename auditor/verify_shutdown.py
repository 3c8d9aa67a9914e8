#!/usr/bin/env python3
"""Checks a gpulease shutdown proof without gpulease: this one file, Python 3.11 or newer, and nothing else.

    python3 verify_shutdown.py r-20261121t140210z-7f3a9k2m.evidence        the folder; of a zip: python3 -m zipfile -e FILE.zip .

What it does, in this order, so that you can follow it down the page:
  1. READING    opens plain files with safe names and sane sizes only
  2. JSON       one meaning and one form: no key twice, no NaN, no floats; what is signed must be canonical (RFC 8785)
  3. SIGNATURE  the DSSE envelope's Ed25519 signature, before anything in it is parsed
  4. JOURNAL    the hash chain: every line names the digest of the line before
  5. SHAPES     every field that is used has its type
  6. HISTORY    what was asked for, what was answered, what was seen
  7. STATEMENT  machines, resources, looks, whether everything is gone: derived from the journal once more and compared
  8. WORDS      what that shows and what it does not
Exit codes: 0 everything agrees, 1 something contradicts, 3 could not be read. 0 is about the document: read the words.
Left to `gpulease verify`, and not judged here: NOT_COMPARED, the reports, signatures by ssh and sigstore, statement.tsr, what
AWS says beside the statement, and whose key it is.
"""

import base64
import functools
import hashlib
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace as Record

NAME = re.compile(r"(?:aws/(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}/){0,3})?[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MIB, EPOCH, MINOR = 1 << 20, datetime(1970, 1, 1, tzinfo=UTC), 0
LIMITS = {"statement.dsse.json": MIB, "signer.pub.json": 4096, "journal.jsonl": 64 * MIB, "results.json": 16 * MIB}
FILE_LIMIT, MOST_FILES, MOST_RECORDS, MOST_THINGS, LINE_LIMIT = 256 * MIB, 2000, 50_000, 1000, 16 << 10
OWN = "statement.dsse.json statement.sshsig statement.tsr statement.sigstore.json signer.pub.json"
OWN += " report.md report.html bill.dsse.json aws/billing.json"
PREDICATE, PAYLOAD_TYPE = "https://gpulease.dev/attestation/gpu-run-shutdown/v1", "application/vnd.in-toto+json"
LONG, INSTANT = re.compile(r"[:,\[]-?\d{16}"), re.compile(r"(2[01]\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?Z", re.ASCII)


class Bad(Exception):  # one finding: its code as in gpulease's docs/proof.md, and words; E0.. and E111 say that we could not look
    def __init__(self, code, words):
        super().__init__(words)
        self.code = code


# 1. READING
def listed(folder, above=""):
    """Every file's name; the one folder that a bundle has inside is aws/."""
    names = []
    try:
        for entry in os.scandir(os.path.join(folder, above)):
            deep = entry.is_dir(follow_symlinks=False) and NAME.fullmatch(f"{above}{entry.name}/x")
            names += listed(folder, f"{above}{entry.name}/") if deep else [above + entry.name]
            if len(names) > MOST_FILES:
                raise Bad("E002", f"more than {MOST_FILES} files")
    except OSError as e:
        raise Bad("E001", f"{folder}: {e.strerror}") from None
    return names


def read(folder, name):
    limit = LIMITS.get(name, FILE_LIMIT)
    if not NAME.fullmatch(name):
        raise Bad("E003", f"{name[:99]!r} is no safe name")
    try:
        before = os.lstat(os.path.join(folder, name))  # opening a FIFO would wait, opening a link would lead elsewhere
        if not stat.S_ISREG(before.st_mode) or before.st_size > limit:
            raise Bad("E002", f"{name} is no plain file of at most {limit} bytes")
        with open(os.path.join(folder, name), "rb") as file:
            return file.read(limit)
    except OSError as e:
        raise Bad("E001", f"{name}: {e.strerror}") from None


# 2. JSON
def strict(raw):
    """The value whose canonical bytes these are, or ValueError."""
    if raw.count(b"[") + raw.count(b"{") > 48:  # Python's reader would go as deep as it is told to
        brackets = re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*+"', b"", raw))
        if max(itertools.accumulate(1 if bracket in b"[{" else -1 for bracket in brackets)) > 48:
            raise ValueError("nested too deeply")
    value = json.loads(raw.decode("utf-8"), parse_constant=int, parse_float=int)  # which take no 1.5, 1e5 or NaN
    if canonical(value) != raw:  # of two equal keys Python keeps one, so the bytes differ as well
        raise ValueError("not in canonical form")
    return value


def canonical(value):
    """RFC 8785 without floats: members in the order of UTF-16, no spaces, shortest escapes."""
    write = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def ordered(v):
        if isinstance(v, dict):
            return {k: ordered(v[k]) for k in sorted(v, key=lambda k: k.encode("utf-16-be", "surrogatepass"))}
        if isinstance(v, int) and not isinstance(v, bool) and abs(v) >= 2**53:
            raise ValueError("a number beyond 2^53 - 1")
        return [ordered(item) for item in v] if isinstance(v, list) else v

    text = write(value, sort_keys=True)  # right for most: what is ASCII has but one order, and a number too long has sixteen digits
    return (text if text.isascii() and text[:1] in "{[" and not LONG.search(text) else write(ordered(value))).encode("utf-8")


def ms(text):
    """Milliseconds since 1970 of an RFC 3339 time with a Z, or None."""
    found = isinstance(text, str) and INSTANT.fullmatch(text)
    try:
        whole = datetime(*map(int, found.groups()[:6]), tzinfo=UTC) - EPOCH if found else None
    except ValueError:
        return None
    return whole // timedelta(milliseconds=1) + int((found[7] or "0").ljust(3, "0")[:3]) if found else None


# 3. SIGNATURE
def signed_payload(raw, public):
    """The bytes that were signed and the key's id. They have not been parsed yet."""
    try:
        body = strict(raw[:-1])
        (only,) = body["signatures"]
        payload, signature, keyid = *(base64.b64decode(text, validate=True) for text in (body["payload"], only["sig"])), only["keyid"]
        text = {"payload": base64.b64encode(payload).decode(), "payloadType": body["payloadType"]}
        again = canonical(text | {"signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}]}) + b"\n"
        if again != raw or not isinstance(keyid, str) or not isinstance(body["payloadType"], str):
            raise ValueError("not in its one form")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Bad("E103", "the envelope is not in its one allowed form: it was edited or re-saved") from None
    if body["payloadType"] != PAYLOAD_TYPE:
        raise Bad("E104", "the payload is of another type")
    try:
        key = bytes.fromhex(strict(public[:-1])["keyval"]["public"])
        form = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": key.hex()}}
        whole = canonical(form | {"keyid": hashlib.sha256(canonical(form)).hexdigest()}) + b"\n"
        known = whole == public and strict(public[:-1])["keyid"] == keyid and len(key) == 32
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    message = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    if not known or not ed25519(key, signature, message):
        raise Bad("E101", f"the signature does not match: the statement was changed, or {str(keyid)[:64]} did not sign it")
    return payload, keyid


def ed25519(key, signature, message):
    """With the package `cryptography` where there is one, else with the program `openssl`."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in (("key", bytes.fromhex("302a300506032b6570032100") + key), ("sig", signature), ("in", message)):
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key"]
            return subprocess.run([*command, "-rawin", "-in", "in", "-sigfile", "sig"], cwd=folder, capture_output=True).returncode == 0
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


# 4. JOURNAL
def chain(data, records):
    """The entries, each following from the one before; `records` is how many the statement says there are."""
    entries, at, head = [], 0, "0" * 64
    while at < len(data):
        end = data.find(b"\n", at) + 1
        line = data[at : end or len(data)]
        if not end or (end == len(data) and b"\0" in line):
            break  # a torn tail, as a crash leaves it
        seq = len(entries)
        if seq == MOST_RECORDS or len(line) > LINE_LIMIT:
            raise Bad("E002" if seq == MOST_RECORDS else "E110", f"journal record {seq}: there are too many, or it is too long")
        try:
            entry = strict(line[:-1])
        except (ValueError, RecursionError):
            raise Bad("E203", f"journal record {seq} is not in canonical form: it was re-saved by another program") from None
        fits(entry, "record", f"$journal[{seq}]")
        if entry["seq"] != seq or entry["prev"] != head:
            raise Bad("E201", f"journal record {seq} (byte {at}) does not follow from the one before it: records were changed")
        entries.append(entry)
        head, at = hashlib.sha256(line).hexdigest(), at + len(line)
    if not entries:
        raise Bad("E001", "there is no whole record in the journal")
    if len(entries) < (records or 0) or at < len(data):
        raise Bad("E202", f"the journal ends, or breaks off, after record {len(entries) - 1}; sealed were {records}")
    answers = (entry for entry in entries if entry["kind"] in ("done", "sweep") and "providerDate" in entry["body"])
    dates = [date for entry in answers if (date := provider_date(entry, entries[0]["body"].get("provider") == "static")) is not None]
    if any(date < latest - 2000 for date, latest in zip(dates, itertools.accumulate(dates, max), strict=True)):
        raise Bad("E204", "AWS's own time runs backwards in the journal")
    return entries


# 5. SHAPES
ATOMS = {
    "text": lambda v: isinstance(v, str) and len(v) <= 4096,
    "count": lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**53,
    "1": lambda v: v == 1 and not isinstance(v, bool),
    "flag": lambda v: isinstance(v, bool),
    "map": lambda v: isinstance(v, dict),
    "time": lambda v: ms(v) is not None,
    "sha": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None,
    "half": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{32}", v) is not None,
    "kind": lambda v: isinstance(v, str) and re.fullmatch("[a-z][a-z-]{0,31}", v) is not None,
    "lease": lambda v: isinstance(v, str) and re.fullmatch("r-[0-9]{8}t[0-9]{6}z-[0-9a-hjkmnp-tv-z]{8}", v) is not None,
    "shas": lambda v: isinstance(v, dict) and all(ATOMS["sha"](item) for item in v.values()),
}
# One line a shape: its members, `?` for those that may be absent, `*n` for a list of at most n; a shape with ! has no other members.
SHAPES = """
record!   at:at body:map kind:kind prev:sha seq:count v:1
at!       wall:time monoMs?:count aws?:time uncMs?:count
genesis   lease:lease provider:text profile?:profile deadline?:time maxRunSeconds?:count budgetMicroUsd?:count offer?:offer quote?:quote
genesis   producer?:producer simulated?:flag rebuilt?:flag elsewhere?:flag waived?:text*100
profile   name:text sha256?:sha
offer     region?:text zone?:text type?:text gpu?:text spot?:flag price?:price
price     microUsdPerHour:count source:text asOf:text
quote     lines?:line*100
line      name:text microUsdPerHour:count source?:text asOf?:text fixedMicroUsd?:count microUsdPerHourLow?:count microUsdPerHourUsual?:count
producer  name?:text version?:text pythonVersion?:text
guard     guard:text state:armed|read-back|waived|removed|failed firesAt?:time drilled?:drilled
drilled!  date:time region:text secondsLate:count
intent    op:create|remove class:text token?:text id?:text params?:params
params    quote?:quote
done      op:create|remove class:text intentSeq:count id:text
done      phase?:coming|here|leaving|gone region?:text state?:text billed?:flag facts?:map
failed    op:create|remove class:text intentSeq:count id?:text code?:text why?:text
unknown   op:create|remove class:text intentSeq:count why?:text
observe   class:text id:text phase:coming|here|leaving|gone region?:text state?:text billed?:flag facts?:map token?:text
sweep     checked:flag classes:looked*500 found:count error?:text
looked    class:text region:text checked:flag found:count reason?:text
baseline  classes:before*500 sha256?:sha
before    class:text regions:text*500 checked:flag reason?:text
unfiltered classes:after*500
after     class:text regions:text*500 checked:flag reason?:text ours:count newUnexplained?:count
recovered by?:text tornSha256?:sha
anchor    head?:half requestId?:text providerDate?:time
verdict   verdict:released|leaving|held|unproven settleSeconds?:count openIntents?:count
outcome   outcome:completed|failed|interrupted|recovered|guard-fired|never-launched exit?:count
seal      files:shas
statement! _type:text predicateType:text subject:subject*200 predicate:map
subject!  name:text digest:digest
digest!   sha256:sha
"""
TABLE, BODIES = {}, "genesis guard intent done failed unknown observe sweep baseline unfiltered recovered anchor verdict outcome seal"
for shape, *members in (line.split() for line in SHAPES.strip().splitlines()):
    TABLE.setdefault(shape.rstrip("!"), {"!": shape.endswith("!")}).update(member.split(":") for member in members)


def fits(value, shape, path):
    """Bad unless the value has that shape."""
    one, _, most = shape.partition("*")
    if most:
        good = isinstance(value, list) and len(value) <= int(most)
        for n, item in enumerate(value if good else ()):
            fits(item, one, f"{path}[{n}]")
    elif one in TABLE:
        closed, known = TABLE[one]["!"], {name.rstrip("?"): inner for name, inner in TABLE[one].items() if name != "!"}
        good = isinstance(value, dict) and all(name in value for name in TABLE[one] if name[-1] not in "?!")
        good = good and not (closed and set(value) - set(known))
        for name in known if good else ():
            if name in value:
                fits(value[name], known[name], f"{path}.{name}")
    else:
        good = ATOMS[one](value) if one in ATOMS else isinstance(value, str) and value in one.split("|")
    if not good:
        raise Bad("E110", f"{path} does not have its shape")


# 6. HISTORY
class Thing:  # one resource: every line that shows it, and how it was asked to go
    def __init__(self, body, ask):
        self.kind, self.id, self.region, self.ask, self.seen, self.removals = body["class"], body["id"], body.get("region", ""), ask, [], []

    def phase(self):
        return next((line["body"]["phase"] for line in reversed(self.seen) if "phase" in line["body"]), "coming")

    def accepted(self):
        return next((ask for ask in self.removals if ask.answer == "done"), None)

    def final(self, quiet):
        """deleted: shown gone. absent: listed no more, twice, after it was last shown."""
        if self.phase() == "gone" or (len(quiet) >= 2 and self.seen[-1]["seq"] < quiet[0]["seq"]):
            return "deleted" if self.phase() == "gone" else "absent"
        return "unknown" if self.accepted() is not None and self.phase() != "leaving" else "present"

    def row(self, quiet):
        made = {"class": self.kind, "id": self.id, "firstSeq": self.seen[0]["seq"], "final": self.final(quiet), "phase": self.phase()}
        made |= {"region": self.region} if self.region else {}
        made |= {"createIntentSeq": self.ask.seq} if self.ask else {}
        made |= {"createDoneSeq": self.ask.by["seq"]} if self.ask and self.ask.answer == "done" else {}
        return made | ({"deleteDoneSeq": self.accepted().by["seq"]} if self.accepted() else {})


class Told:
    """What the lines tell: asks with their answers, things, and how far the local clock was from AWS's."""

    def __init__(self, entries):
        self.entries, self.genesis, self.asks, self.things, self.rows, intents = entries, entries[0]["body"], [], {}, {}, {}
        self.foreign = self.genesis.get("provider") == "static"  # somebody else's machine, whose clock is no authority
        for entry in entries:
            if entry["kind"] in BODIES.split():
                fits(entry["body"], entry["kind"], f"$journal[{entry['seq']}].body")
            if (entry["kind"] == "genesis") != (entry["seq"] == 0):
                raise Bad("E110", "a journal has one genesis, at its beginning")
            self.rows.setdefault(entry["kind"], []).append(entry)
            if entry["kind"] == "intent":
                self.intent(entry, intents)
            elif entry["kind"] in ("done", "failed", "unknown"):
                self.answer(entry, intents)
            elif entry["kind"] == "observe":
                self.shown(entry, None)
            if len(self.things) > MOST_THINGS or len(self.asks) > MOST_THINGS:
                raise Bad("E110", f"more than {MOST_THINGS} resources")
        offsets = []
        for entry in entries:
            at, wall, date = entry["at"], ms(entry["at"]["wall"]), provider_date(entry, self.foreign)
            if "aws" in at:
                offsets += [ms(at["aws"]) - wall - at.get("uncMs", 1000), ms(at["aws"]) - wall + at.get("uncMs", 1000)]
            elif date is not None:
                offsets += [date - wall, date + 1000 - wall]
        self.offset = (min(offsets), max(offsets)) if offsets else None
        tokens = {str(line["body"]["token"]) for thing in self.things.values() for line in thing.seen if "token" in line["body"]}
        self.unanswered = [ask for ask in self.asks if ask.answer in ("", "unknown") and ask.body["token"] not in tokens]

    def intent(self, entry, intents):
        body = entry["body"]
        ask = intents[entry["seq"]] = Record(entry=entry, seq=entry["seq"], body=body, answer="", by=None)
        if body["op"] == "create":
            if not body.get("token"):
                raise Bad("E110", f"record {entry['seq']}: a create has a token")
            self.asks.append(ask)
        elif (body["class"], body.get("id", "")) in self.things:
            self.things[body["class"], body.get("id", "")].removals.append(ask)

    def answer(self, entry, intents):
        body, kind = entry["body"], entry["kind"]
        ask = intents.get(body["intentSeq"])
        other = ask is None or any(ask.body.get(name) != body.get(name) for name in ("op", "class"))
        other = other or (body["op"] == "remove" and kind == "done" and ask.body.get("id") != body["id"])
        if other or ask.answer in ("done", "failed") or ask.answer == kind == "unknown":
            raise Bad("E110", f"record {entry['seq']} answers nothing that is open")
        ask.answer, ask.by = kind, entry
        if kind == "done" and body["op"] == "create":
            self.shown(entry, ask)

    def shown(self, entry, ask):
        body = entry["body"]
        thing = self.things.get((body["class"], body["id"]))
        if thing is None:
            if ask is None and body.get("token"):
                ask = next((a for a in self.asks if a.body["token"] == body["token"]), None)
            thing = self.things[body["class"], body["id"]] = Thing(body, ask)
        elif ask is not None:
            thing.ask = ask
        thing.seen.append(entry)

    def moment(self, entry, name):
        """`name` and its uncertainty: the provider's date where there is one, else the local time moved by the offset."""
        at, date = entry["at"], provider_date(entry, self.foreign)
        when, off = ms(at["wall"]), None
        if "aws" in at:
            when, off = ms(at["aws"]), at.get("uncMs", 1000)
        elif date is not None:
            when, off = date + 500, 500
        elif self.offset is not None:
            when, off = when + sum(self.offset) // 2, -(-(self.offset[1] - self.offset[0]) // 2)
        shown = (EPOCH + timedelta(milliseconds=when)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {name: shown} | ({} if off is None else {f"{name}UncertaintyMs": off})

    def quiet(self):
        """The whole and empty looks at the end, with nothing of ours asked for or sighted between them."""
        here = str(self.genesis.get("offer", {}).get("region", ""))
        met = {(thing.kind, thing.region) for thing in self.things.values()}
        said = ((ask.body["class"], ask.body.get("params", {}).get("region") or here) for ask in self.asks)
        asked = {(kind, where if isinstance(where, str) else "") for kind, where in said}
        needed = met | {pair for pair in asked if pair[1]}
        if self.genesis["provider"] == "aws":  # every kind that a launch can leave behind, in every region of this lease
            regions = {where for _, where in met | asked if where} or {here}
            needed = {(kind, where) for kind in EC2_KINDS for where in regions} | met | {pair for pair in needed if pair[0] in MAKERS}
        quiet = []
        for entry in self.entries:
            body, kind = entry["body"], entry["kind"]
            if kind == "sweep":
                rows = {(row["class"], row["region"]): row["checked"] for row in body["classes"]}
                empty = body["found"] == 0 and not any(row["found"] for row in body["classes"])
                whole = body["checked"] and "error" not in body and rows and all(rows.get(pair) for pair in needed)
                quiet = [*quiet, entry] if empty and whole else []
            elif (kind in ("intent", "done") and body["op"] == "create") or (kind == "observe" and body["phase"] != "gone"):
                quiet = []
        return quiet

    def apart(self, quiet):
        """Whole seconds from the first to the last of them: the best lower bound that the clocks give."""
        one, two = quiet[0], quiet[-1]
        dates = provider_date(one, self.foreign), provider_date(two, self.foreign)
        wall, mono = ms(two["at"]["wall"]) - ms(one["at"]["wall"]), two["at"].get("monoMs", 0) - one["at"].get("monoMs", 0)
        handed = any(one["seq"] < entry["seq"] < two["seq"] for entry in self.rows.get("recovered", []))
        local = min(wall, mono) if mono >= 0 and not handed else wall if None in dates else 0  # a clock may be set between two processes
        return max([0, local, dates[1] - dates[0] - 1000] if None not in dates else [0, local]) // 1000

    def machine(self, ask, thing):
        made = {"createIntentSeq": ask.seq, "clientToken": ask.body["token"], "answer": ask.answer or "none"} if ask else {}
        made |= self.moment(ask.entry, "requestedAt") if ask else {}
        if thing is None:
            return made
        made["id"] = thing.id
        for phase, name in (("here", "runningFirstSeenAt"), ("gone", "terminatedFirstSeenAt")):
            first = next((line for line in thing.seen if line["body"].get("phase") == phase), None)
            made |= self.moment(first, name) if first else {}
        made |= self.moment(thing.removals[0].entry, "terminateRequestedAt") if thing.removals else {}
        return made | (self.moment(thing.accepted().by, "terminateAcceptedAt") if thing.accepted() else {})

    def look(self, entry):
        rows = {}  # one for each kind that was looked at alike
        for one in entry["body"]["classes"]:
            alike = {"class": one["class"], "checked": one["checked"]} | ({"reason": one["reason"]} if one.get("reason") else {})
            row = rows.setdefault(canonical(alike), alike | {"regions": [], "ours": 0})
            row["regions"].append(one["region"])
            row["ours"] += one["found"]
        made = {"seq": entry["seq"], "found": entry["body"]["found"], "classes": list(rows.values())} | self.moment(entry, "at")
        return made | ({"error": entry["body"]["error"]} if entry["body"].get("error") else {})

    def unfiltered(self):
        """What was new after the end and not of this run, whosever it is."""
        before = self.rows["baseline"][0]
        after = max([before, *self.rows.get("unfiltered", [])], key=lambda entry: entry["seq"])
        nobody = {"checked": False, "ours": 0, "reason": "nobody looked again"} if after is before else {}
        names = {"class", "regions", "checked", "reason", *({} if nobody else {"ours", "newUnexplained"})}
        rows = [{name: row[name] for name in names if name in row} | nobody for row in after["body"]["classes"]]
        made = {"baselineSeq": before["seq"], "classes": rows} | self.moment(before, "baselineAt")
        return {"unfiltered": made | ({} if nobody else {"seq": after["seq"]} | self.moment(after, "at"))}


def provider_date(entry, foreign):
    facts = entry["body"].get("facts")
    return None if foreign else ms(entry["body"].get("providerDate") or (facts.get("providerDate") if isinstance(facts, dict) else None))


# 7. STATEMENT
COMPARED = ("run", "instances", "resources", "sweeps", "settleSeconds", "clean", "verdict", "simulated", "journal", "unfiltered")
NOT_COMPARED = ("cost", "guards", "anchors", "clock", "evaluation", "corroboration", "limits", "producer", "rendererVersion", "schemaMinor")
OPTIONAL = {"evaluation", "supersedes", "unfiltered"}
MAKERS = ("fleet", "spot-fleet-request")  # these make machines by themselves, so a look that leaves them out is not whole
EC2_KINDS = ("instance", "volume", "network-interface", "security-group")
MORE = {"type", "region", "availabilityZone", "imageId", "hostKeySha256", "firstHostKeySha256", "stateReason", "stateTransitionReason"}
MORE |= {"refusal", "purchase", "stopCause", "launchTime", "requestIds", "gpu"}


def derived(told):
    """What the statement must say of the parts in COMPARED."""
    genesis, rows, entries, quiet = told.genesis, told.rows, told.entries, told.quiet()
    settings, apart, verdicts = genesis.get("settings"), told.apart(quiet) if len(quiet) >= 2 else 0, rows.get("verdict", [])
    simulated = bool(genesis.get("simulated")) or (isinstance(settings, dict) and bool(settings.get("endpoint")))
    settle = {"aws": 300, "static": 5}.get(genesis["provider"], 1) if told.unanswered or genesis.get("elsewhere") else 1
    twice = len(quiet) >= 2 and apart >= (0 if simulated else settle)  # two whole and empty looks; what is late had time to show
    waited = twice and all(ask.seq < quiet[0]["seq"] for ask in told.unanswered)
    verdict = verdicts[-1]["body"]["verdict"] if verdicts else "unproven"
    gone = all(thing.final(quiet) in ("deleted", "absent") for thing in told.things.values())
    lost = [{"class": ask.body["class"], "createIntentSeq": ask.seq, "firstSeq": ask.seq} for ask in told.unanswered]
    seen = [thing for thing in told.things.values() if thing.kind == "instance"]
    made = {id(thing.ask): thing for thing in reversed(seen) if thing.ask is not None}
    machines = [(ask, made.get(id(ask))) for ask in told.asks if ask.body["class"] in ("instance", "fleet")]
    machines += [(thing.ask, thing) for thing in seen if thing.ask is None or made[id(thing.ask)] is not thing]
    run = {"id": genesis["lease"], "provider": genesis["provider"]} | told.moment(entries[0], "startedAt")
    run |= {name: genesis[name] for name in ("budgetMicroUsd", "maxRunSeconds", "deadline") if name in genesis}
    run |= told.moment(verdicts[-1], "endedAt") if verdicts else {}
    run |= {"outcome": rows["outcome"][-1]["body"]["outcome"]} if "outcome" in rows else {}
    run |= {"profile": {n: said for n, said in genesis["profile"].items() if n in ("name", "sha256")}} if "profile" in genesis else {}
    torn = [{"seq": e["seq"], "sha256": e["body"]["tornSha256"]} for e in rows.get("recovered", []) if "tornSha256" in e["body"]]
    return {
        "run": run,
        "instances": [told.machine(ask, thing) for ask, thing in machines],
        "resources": [thing.row(quiet) for thing in told.things.values()]
        + [row | {"final": "absent" if waited else "unknown"} for row in lost],
        "sweeps": [told.look(entry) for entry in rows.get("sweep", [])[-24:]],
        "settleSeconds": apart,
        "clean": bool(verdict == "released" and twice and (waited or not told.unanswered) and gone)
        and not (genesis.get("rebuilt") or genesis.get("elsewhere")),  # what it had asked for before is not known here
        "verdict": verdict,
        "simulated": simulated,
        "journal": {"records": len(entries), "head": hashlib.sha256(canonical(entries[-1]) + b"\n").hexdigest(), "tornTails": torn}
        | {"firstAt": entries[0]["at"]["wall"], "lastAt": entries[-1]["at"]["wall"]},
    } | (told.unfiltered() if "baseline" in told.rows else {})


def compare(stated, made, path):
    """The statement may say what is in MORE besides; of all else, exactly what the journal says."""
    if isinstance(made, dict) and isinstance(stated, dict):
        loose = MORE if path == "$.run" or path.startswith("$.instances[") else set()
        for name in [*made, *sorted(set(stated) - set(made) - loose)]:
            compare(stated.get(name), made.get(name), f"{path}.{name}")
    elif isinstance(made, list) and isinstance(stated, list) and len(made) == len(stated):
        for n, (a, b) in enumerate(zip(stated, made, strict=True)):
            compare(a, b, f"{path}[{n}]")
    elif type(stated) is not type(made) or stated != made:
        raise Bad("E301", f"{path} is {str(stated)[:60]!r} in the statement and {str(made)[:60]!r} by the journal")


# 8. WORDS
def check(folder):
    """Every finding, the statement's predicate if it can be believed, and the key's id."""
    found, raw = [], {}

    def step(action, *given):
        try:
            return action(*given)
        except Bad as e:
            found.append(e)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as e:
            found.append(Bad("E110", f"it tells no run ({type(e).__name__}: {str(e)[:80]})"))
        return None

    names = step(listed, folder) or []
    for name in ("statement.dsse.json", "signer.pub.json", "journal.jsonl"):
        if name in names or name == "statement.dsse.json":
            raw[name] = step(read, folder, name)
    envelope = raw["statement.dsse.json"]
    signed = step(signed_payload, envelope, raw.get("signer.pub.json") or b"") if envelope is not None else None
    statement = step(shaped, signed[0]) if signed else None
    for subject in statement["subject"] if statement else ():
        step(digest, folder, names, raw, subject)
    if raw.get("journal.jsonl") is not None:
        entries = step(chain, raw["journal.jsonl"], statement["predicate"]["journal"]["records"] if statement else None)
        if entries and statement:
            step(agrees, statement, entries)
    return found, statement and statement["predicate"], signed[1] if signed else ""


def shaped(payload):
    statement = strict(payload)
    newer = re.fullmatch(re.escape(PREDICATE[:-1]) + r"([2-9]|[1-9]\d{1,3})", str(statement.get("predicateType")))
    if newer:
        raise Bad("E111", f"the statement is of version {newer[1]}, which this script is too old for")
    fits(statement, "statement", "$")
    names, predicate = [subject["name"] for subject in statement["subject"]], statement["predicate"]
    own = names[:1] != ["journal.jsonl"] or len(set(names)) != len(names) or set(names) & {*OWN.split()}
    if statement["_type"] != "https://in-toto.io/Statement/v1" or statement["predicateType"] != PREDICATE or own:
        raise Bad("E110", "it is no in-toto statement of a shutdown whose first subject is the journal")
    wrong = (set(predicate) ^ {*COMPARED, *NOT_COMPARED}) - OPTIONAL if predicate["schemaMinor"] == MINOR else set()
    if wrong or not all(map(ATOMS["count"], (predicate["schemaMinor"], predicate["journal"]["records"]))):
        raise Bad("E110", f"the predicate lacks or adds {', '.join(sorted(wrong)) or 'a version'}")
    return statement


def digest(folder, names, raw, subject):
    name, want = subject["name"], subject["digest"]["sha256"]
    if NAME.fullmatch(name) and name not in names:
        raise Bad("E121", f"{name} is named in the statement and missing")
    data = raw[name] if name in raw else read(folder, name)
    if data is not None and hashlib.sha256(data).hexdigest() != want:
        raise Bad("E120", f"{name} was changed or swapped: its sha256 is not the one in the statement")


def agrees(statement, entries):
    told, absent = Told(entries), {"unfiltered": ...}
    said, made = absent | statement["predicate"], absent | derived(told)
    for name in COMPARED:
        compare(said[name], made[name], f"$.{name}")
    files = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    for name, sealed in told.rows["seal"][-1]["body"]["files"].items() if "seal" in told.rows else ():
        if name != "journal.jsonl":
            compare(files.get(name), sealed, f"$.subject {name}")
    for ask in told.asks:  # a token that carries the journal's head went to AWS: what was before it cannot be another now
        head = ask.body["token"].rpartition("-")[2]
        if re.fullmatch("[0-9a-f]{32}", head) and not ask.entry["prev"].startswith(head):
            raise Bad("E512", f"the token of record {ask.seq} carries another journal's head")


def plain(text):  # nothing from the bundle may move a cursor or begin a line
    return "".join(c if c.isprintable() else "?" for c in str(text))[:400]


def main(argv):
    if len(argv) != 2:
        print(__doc__)
        return 3
    found, predicate, keyid = check(argv[1])
    code = 1 if any(bad.code not in ("E001", "E002", "E003", "E111") for bad in found) else 3 if found else 0
    if code:
        first = "NOT VERIFIED. Believe nothing in it." if code == 1 else "Cannot be read. Nothing follows about the run."
        print(first, *(f"{bad.code}  {plain(bad)}" for bad in found), sep="\n")
        return code
    print(f"{'SIMULATED, ' if predicate['simulated'] else ''}client-signed, with the key {keyid}.")
    print(f"{predicate['run']['id']}: verdict {predicate['verdict']}; {'' if predicate['clean'] else 'NOT '}everything seen gone, twice.")
    for one in predicate["instances"]:
        ends = f"stop accepted {one.get('terminateAcceptedAt', 'never')}, seen terminated {one.get('terminatedFirstSeenAt', 'never')}"
        print(f"  {plain(one.get('id', 'a launch without an id'))}: {ends}")
    for one in predicate["resources"]:
        print(f"  {plain(one['class'])} {plain(one.get('id', '(answer lost)'))}: {one['final']}")
    for one in filter(lambda one: one.get("newUnexplained"), predicate.get("unfiltered", {"classes": []})["classes"]):
        print(f"  {one['newUnexplained']} {plain(one['class'])}: new, and not known to be of this run; may be somebody else's")
    print(f"NOT SHOWN  that the program which wrote the journal told the truth; {plain(', '.join(map(str, predicate['limits'])))}.")
    print(f"NOT JUDGED HERE  {', '.join((*NOT_COMPARED, *sorted(MORE)))}; reports, ssh, sigstore, timestamp, aws/; whose key it is.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
