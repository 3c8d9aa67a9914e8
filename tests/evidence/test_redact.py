"""A copy without names: none of them is in any file of it in any spelling, it verifies, and says what it costs."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from pathlib import Path

import pytest

from provisioner.evidence import bundle, redact, sign, statement, verify
from provisioner.names import commitment
from provisioner.secret import Secret
from tests.evidence import journals
from tests.evidence.bundles import files_of, keys
from tests.evidence.journals import INST, PRODUCER, STORIES, Tape

ACCOUNT, USER, IP = "640917385526", "alice.example", "198.51.100.77"
ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/{USER}"
NAMES = [ACCOUNT, USER, IP, ARN, "172.31.7.9", "bucket-of-alice"]


def told() -> Tape:
    tape = journals.Tape().genesis(settings={"region": "us-east-1", "user": USER}).guards().launch().run()
    tape.observe("instance", INST, "here", "running", type="g6.xlarge", address=IP, privateAddress="172.31.7.9")
    tape.add("failure", error="NotPermitted", what=f"User: {ARN} is not authorized", why=f"account {ACCOUNT} from {IP}")
    tape.add("stage", stage="log", state="begin", detail={"bucket": "bucket-of-alice", "owner": ACCOUNT})
    return tape.release().quiet().verdict().end(files=journals.FILES)


def spellings(name: str | bytes) -> list[bytes]:
    """As it is, base64 at each of three offsets, hex, URL-encoded, backwards, and its first twelve characters."""
    raw = name.encode() if isinstance(name, str) else name
    based = [base64.b64encode(b"x" * n + raw)[4 * (n > 0) + (n > 0) : -4] for n in range(3)]
    return [raw, *based, raw.hex().encode(), urllib.parse.quote(raw, safe="").encode(), raw[::-1], raw[:12]]


def copied(folder: Path, tape: Tape) -> redact.Redacted:
    made = redact.redacted(tape.entries, files_of(tape), Secret(b"secret"))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()}
    stated = statement.build(made.entries, digests, producer=PRODUCER, results=made.files.get("results.json"))
    stated["predicate"]["supersedes"] = {"sha256": "0" * 64}
    bundle.write(folder, stated, sign.sign(stated, keys()), made.journal, made.files)
    return made


def test_no_name_is_in_any_file_of_the_copy_in_any_of_six_spellings(tmp_path: Path) -> None:
    copied(tmp_path / "b", told())
    for path in (tmp_path / "b").iterdir():
        data = path.read_bytes()
        if path.name == "statement.dsse.json":
            data += base64.b64decode(json.loads(data)["payload"])
        for name in NAMES:
            assert not [spelt for spelt in spellings(name) if spelt in data], (path.name, name)
    assert all(any(spelt in told().bytes for spelt in spellings(name)[:1]) for name in NAMES)


@pytest.mark.parametrize("story", STORIES)
def test_the_copy_of_every_story_verifies_and_says_the_same_of_the_run(story: str, tmp_path: Path) -> None:
    tape = STORIES[story]()
    copied(tmp_path / "b", tape)
    report = verify.verify(tmp_path / "b")
    assert report.exit == 0 and report.predicate is not None, report.text()
    honest = statement.build(tape.entries, {}, producer=PRODUCER) if "seal" not in [e["kind"] for e in tape.entries] else None
    if honest is not None:
        assert report.predicate["verdict"] == honest["predicate"]["verdict"] and report.predicate["clean"] == honest["predicate"]["clean"]
    assert report.tier == "client" and not report.predicate["anchors"]


def test_an_opening_opens_its_commitment_and_no_other() -> None:
    made = redact.redacted(told().entries, {}, Secret(b"secret"))
    assert {opening["value"] for opening in made.openings.values()} >= set(NAMES) - {ACCOUNT} and ACCOUNT in str(made.openings)
    for shown, opening in made.openings.items():
        assert commitment(opening["field"], opening["value"], bytes.fromhex(opening["salt"])) == shown
        assert commitment(opening["field"], opening["value"] + "x", bytes.fromhex(opening["salt"])) != shown
        assert shown.encode() in made.journal or opening["field"] == "accountId"
    again = redact.redacted(told().entries, {}, Secret(b"another secret"))
    assert not set(again.openings) & set(made.openings), "the same value under another secret is another commitment"


def test_what_was_closed_when_it_was_written_is_not_closed_again() -> None:
    closed = commitment("address", IP, b"0" * 16)
    tape = journals.Tape().genesis().guards().launch().run()
    tape.observe("instance", INST, "here", "running", type="g6.xlarge", address=closed)
    made = redact.redacted(tape.entries, {}, Secret(b"secret"))
    assert closed.encode() in made.journal and closed not in str(made.openings)


def test_loopback_versions_and_request_ids_stay() -> None:
    tape = journals.Tape().genesis()
    tape.add("stage", stage="x", detail={"a": "127.0.0.1:8000", "b": "570.133.20", "c": "b9d3fdc8-9ffb-4ce1-ac54-123456789012"})
    assert not redact.redacted(tape.entries, {}, Secret(b"secret")).openings


def test_a_copy_of_a_run_whose_head_aws_was_shown_names_no_head_and_verifies(tmp_path: Path) -> None:
    made = copied(tmp_path / "b", journals.normal().witnessed())
    assert [e["body"].get("head") for e in made.entries if e["kind"] == "anchor"] == [None]
    assert verify.verify(tmp_path / "b").exit == 0
