"""CloudTrail's word: what it lifts a proof to, and which lies of the key's owner it ends."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioner.evidence import bill, certificates, digests, sign, verify
from provisioner.evidence.canonical import Malformed, dumps
from provisioner.evidence.cloudtrail import EVENTS, compare
from provisioner.evidence.history import read
from provisioner.evidence.outcome import Report
from provisioner.evidence.statement import heads
from provisioner.rehearsal import worthless
from tests.evidence.amazon import PINNED
from tests.evidence.bundles import keys, state, write
from tests.evidence.tape import INST, LEASE, Tape
from tests.evidence.trail import HOURS, Event, copied, event, events, head_after, logged, rehearsed, story

KEY = worthless.public_key()


def checked(to: Path, tape: Tape, *, keys: bool = True, require: str = "client", made: Any = None) -> Report:
    return verify.verify(write(to / "b", tape, made), require, certificates=[PINNED], cloudtrail_keys=[KEY] if keys else [])


def codes(report: Report) -> tuple[list[str], list[str]]:
    return [p.code for p in report.problems], [w.code for w in report.warnings]


def with_(tape: Tape, files: dict[str, bytes]) -> Tape:
    tape.aws |= files
    return tape


def test_copies_of_every_record_that_matters_make_a_proof_recorded(tmp_path: Path) -> None:
    tape = story()
    report = checked(tmp_path, with_(tape, copied(events(tape))), require="recorded")
    assert codes(report) == ([], []) and report.exit == 0
    assert report.text().startswith("VERDICT  AWS-recorded. ")
    limits = report.predicate["limits"] if report.predicate else []
    assert {"records-are-copies", "client-observed"} <= set(limits) and not {"no-cloudtrail", "client-signed-only"} & set(limits)


def test_signed_digests_without_a_gap_make_it_corroborated_for_whoever_brings_amazons_key(tmp_path: Path) -> None:
    tape = story()
    with_(tape, copied(events(tape)) | logged(events(tape), HOURS))
    report = checked(tmp_path, tape, require="corroborated")
    assert codes(report) == ([], []) and report.exit == 0 and report.text().startswith("VERDICT  AWS-corroborated. ")
    without = checked(tmp_path / "2", tape, keys=False)
    assert without.exit == 0 and without.tier == "recorded" and codes(without) == ([], ["W604"])
    assert "its maker says AWS-corroborated; that could not be checked here" in without.text()


def test_the_rehearsals_digests_lift_a_simulated_proof_and_no_other(tmp_path: Path) -> None:
    tape = rehearsed()
    report = checked(tmp_path, with_(tape, copied(events(tape)) | logged(events(tape), HOURS)), keys=False)
    assert report.tier == "corroborated" and report.text().startswith("VERDICT  SIMULATED, AWS-corroborated. ")
    real = story()
    with_(real, logged(events(real), HOURS))
    assert checked(tmp_path / "2", real, keys=False).tier == "recorded"


def test_another_journal_written_afterwards_has_not_the_heads_that_aws_recorded(tmp_path: Path) -> None:
    """The forgery that a signature cannot stop: the key's owner writes a consistent story and signs it."""
    true, rewritten = story(), story(budgetMicroUsd=9_000_000)
    report = checked(tmp_path, with_(rewritten, copied(events(true))))
    assert report.exit == 1 and "E605" in codes(report)[0] and "it was rewritten after that call" in report.text()


def test_a_machine_that_the_journal_keeps_quiet_about_is_found(tmp_path: Path) -> None:
    tape = story()
    second = {"instancesSet": {"items": [{"instanceId": "i-0second"}]}}
    hidden = event("RunInstances", "req-hidden", "2026-11-18T11:07:00Z", {}, second, head_after(tape, 5))
    report = checked(tmp_path, with_(tape, copied([*events(tape), hidden])))
    assert codes(report)[0] == ["E606"] and "i-0second" in report.text()


def change(name: str, **values: Any) -> Callable[[list[Event]], list[Event]]:
    return lambda all_: [one | values if one["eventName"] == name else one for one in all_]


def asked(name: str, **values: Any) -> Callable[[list[Event]], list[Event]]:
    return lambda all_: [
        one | {"requestParameters": one["requestParameters"] | values} if one["eventName"] == name else one for one in all_
    ]


NOTHING: dict[str, Any] = {"instancesSet": {"items": []}}


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (change("TerminateInstances", eventTime="2026-11-18T11:40:00Z"), "E604"),
        (change("TerminateInstances", errorCode="Client.UnauthorizedOperation"), "E604"),
        (change("TerminateInstances", requestParameters=NOTHING, responseElements=NOTHING), "E604"),
        (change("TerminateInstances", eventName="StopInstances"), "E604"),
        (change("TerminateInstances", awsRegion="eu-west-1"), "E604"),
        (change("RunInstances", responseElements={"instancesSet": {"items": [{"instanceId": "i-0other"}]}}), "E604"),
        (change("RunInstances", eventTime="soon"), "E604"),
        (asked("RunInstances", clientToken=f"{LEASE[-8:]}-2-{'0' * 32}"), "E604"),
        (change("GetCallerIdentity", userAgent=f"gpulease/1.0 run/{LEASE} jh/{'0' * 32}"), "E605"),
    ],
)
def test_a_record_that_says_something_else_is_a_contradiction(how: Callable[[list[Event]], list[Event]], code: str, tmp_path: Path) -> None:
    tape = story()
    report = checked(tmp_path, with_(tape, copied(how(events(tape)))))
    assert report.exit == 1 and code in codes(report)[0]


@pytest.mark.parametrize("odd", [["x"], {"x": []}, 7, None, True], ids=str)
def test_a_field_of_another_type_than_it_should_have_makes_nothing_fall_over(odd: Any, tmp_path: Path) -> None:
    tape = story()
    whole = events(tape)
    for number, field in enumerate(sorted({name for one in whole for name in one})):
        report = checked(tmp_path / str(number), with_(tape, copied([one | {field: odd} for one in whole])))
        assert report.exit in (0, 1) and report.text(), field


@pytest.mark.parametrize("name", ["RunInstances", "TerminateInstances", "GetCallerIdentity"])
def test_a_record_that_is_not_there_yet_leaves_the_tier_and_under_a_whole_chain_it_is_a_lie(name: str, tmp_path: Path) -> None:
    tape = story()
    left = [one for one in events(tape) if one["eventName"] != name]
    early = checked(tmp_path, with_(tape, copied(left)))
    assert early.exit == 0 and early.tier == "identified" and codes(early)[1] == ["W603"]
    lied = checked(tmp_path / "2", with_(tape, logged(left, HOURS)))
    assert lied.exit == 1 and codes(lied)[0] == ["E603"] and "AWS did not receive that call" in lied.text()


def test_a_chain_of_digests_that_does_not_cover_the_run_is_a_gap_and_said(tmp_path: Path) -> None:
    for n, hours in enumerate((HOURS[1:], ("2026-11-18T11:00:00Z", "2026-11-18T11:07:00Z"))):
        tape = story()
        report = checked(tmp_path / str(n), with_(tape, copied(events(tape)) | logged([], hours)))
        assert report.exit == 0 and report.tier == "recorded" and codes(report)[1] == ["W601"]
        assert report.predicate is not None and "digest-gap" in report.predicate["limits"]


def test_a_digest_in_the_middle_cannot_be_left_out(tmp_path: Path) -> None:
    tape = story()
    hours = ("2026-11-18T11:00:00Z", "2026-11-18T11:08:00Z", "2026-11-18T11:09:00Z", "2026-11-18T12:00:00Z")
    files = {name: data for name, data in logged(events(tape), hours).items() if not name.split(".")[0].endswith("_1")}
    report = checked(tmp_path, with_(tape, copied(events(tape)) | files))
    assert report.tier == "recorded" and codes(report)[1] == ["W601"]


def test_a_log_file_that_was_edited_or_a_digest_that_aws_did_not_sign_is_a_contradiction(tmp_path: Path) -> None:
    tape = story()
    files = logged(events(tape), HOURS)
    log = next(name for name in files if name.startswith(digests.LOGS))
    edited = checked(tmp_path, with_(tape, files | {log: gzip.compress(json.dumps({"Records": []}).encode())}))
    assert edited.exit == 1 and "E602" in codes(edited)[0]
    beside = next(name for name in files if name.endswith(".sig.json"))
    changed = files | {beside: json.dumps(json.loads(files[beside]) | {"signature": "ab" * 256}).encode()}
    unsigned = checked(tmp_path / "2", with_(tape, changed))
    assert unsigned.exit == 1 and "E601" in codes(unsigned)[0]


@pytest.mark.parametrize(
    "text", [b"{}", b"[]\n", b'{"eventID":"1","eventID":"2"}', b"\xff", b'{"eventID":1,"eventName":"x","eventTime":"y"}']
)
def test_records_in_another_form_are_refused_and_never_fall_over(text: bytes, tmp_path: Path) -> None:
    report = checked(tmp_path, with_(story(), {EVENTS: text}))
    assert report.exit == 1 and codes(report)[0] == ["E110"]


@pytest.mark.parametrize("text", [b"", b"\x1f\x8b", gzip.compress(b"[]"), gzip.compress(b"{}"), gzip.compress(b"{") + b"x"], ids=range(5))
def test_digests_in_another_form_are_refused_and_never_fall_over(text: bytes, tmp_path: Path) -> None:
    report = checked(tmp_path, with_(story(), {f"{digests.DIGESTS}x.json.gz": text, f"{digests.DIGESTS}x.sig.json": b"{}"}))
    assert report.exit == 1 and codes(report)[0] == ["E601"]


def test_a_bomb_in_gzip_is_not_inflated() -> None:
    with pytest.raises(Malformed, match="more than"):
        digests.inflated(gzip.compress(b"\0" * (digests.MOST_BYTES + 1), 1))


def test_many_files_that_become_large_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = story()
    with_(tape, copied(events(tape)) | logged(events(tape), HOURS))
    folder = write(tmp_path / "b", tape)
    monkeypatch.setattr(digests, "MOST_IN_ALL", 3000)
    report = verify.verify(folder, certificates=[PINNED], cloudtrail_keys=[KEY])
    assert "E002" in codes(report)[0] and report.exit in (1, 3) and report.tier == ""


def test_a_launch_whose_answer_was_lost_is_found_by_its_token_and_a_guards_end_by_its_machine(tmp_path: Path) -> None:
    tape = story()
    predicate = state(tape)["predicate"]
    predicate["instances"][0]["requestIds"] = {}

    found = compare(predicate, heads(read(tape.entries)), events(tape))
    assert found.whole and found.ours == 3
    assert compare(predicate, heads(read(tape.entries)), []).missing[0] == ("RunInstances", "none")
    assert INST in str(events(tape))


def test_a_fleet_makes_and_ends_a_machine_in_the_place_of_the_two_calls(tmp_path: Path) -> None:
    def by_fleet(one: Event) -> Event:
        match one["eventName"]:
            case "RunInstances":
                asked_for = {"CreateFleetRequest": {"ClientToken": one["requestParameters"]["clientToken"]}}
                return one | {"eventName": "CreateFleet", "requestParameters": asked_for, "responseElements": None}
            case "TerminateInstances":
                return one | {"eventName": "DeleteFleets", "requestParameters": {}, "responseElements": None}
        return one

    tape = story()
    assert checked(tmp_path, with_(tape, copied([by_fleet(one) for one in events(tape)]))).tier == "recorded"
    hidden = event("CreateFleet", "req-h", "2026-11-18T11:07:00Z", {}, {"CreateFleetResponse": {"fleetId": "fleet-1"}}, head_after(tape, 5))
    assert codes(checked(tmp_path / "2", with_(tape, copied([*events(tape), hidden]))))[0] == ["E606"]


ANSWER = {
    "retrievedAt": "2026-11-21T09:00:00Z",
    "resources": [INST],
    "results": [{"Estimated": False, "Groups": [{"Keys": [INST], "Metrics": {"UnblendedCost": {"Amount": "0.0565", "Unit": "USD"}}}]}],
}


def billed(to: Path, answer: dict[str, Any], *, spoil: Callable[[dict[str, Any]], object] = lambda second: None) -> Report:
    """A corroborated proof with a second statement, of what was billed."""
    tape = story()
    with_(tape, copied(events(tape)) | logged(events(tape), HOURS))
    folder = write(to / "b", tape)
    raw = (folder / "statement.dsse.json").read_bytes()
    second = bill.build(state(tape)["predicate"], raw, dumps(ANSWER))
    spoil(second)
    (folder / bill.ENVELOPE).write_bytes(sign.sign(second, keys()).raw)
    (folder / bill.FILE).write_bytes(dumps(answer))
    return verify.verify(folder, "billed", certificates=[PINNED], cloudtrail_keys=[KEY])


def test_the_bill_beside_a_corroborated_proof_is_the_last_tier_and_is_held_against_the_bounds(tmp_path: Path) -> None:
    report = billed(tmp_path, ANSWER)
    assert codes(report) == ([], []) and report.exit == 0 and report.text().startswith("VERDICT  billed. ")
    assert "Billed for its machines: 0.06 USD, inside the bounds at list price" in report.text()
    assert "the bill" not in next(line for line in report.text().splitlines() if line.startswith("NOT SHOWN"))
    assert not report.not_covered


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda second: second["predicate"].update(billedMicroUsd=1), "E403"),
        (lambda second: second["predicate"].update(comparison="below"), "E403"),
        (lambda second: second["subject"][0]["digest"].update(sha256="0" * 64), "E403"),
        (lambda second: second["predicate"].update(more=1), "E110"),
    ],
)
def test_a_second_statement_that_does_not_follow_from_the_first_and_the_answer_is_a_contradiction(
    spoil: Callable[[dict[str, Any]], object], code: str, tmp_path: Path
) -> None:
    report = billed(tmp_path, ANSWER, spoil=spoil)
    assert report.exit == 1 and codes(report)[0] == [code]


@pytest.mark.parametrize(
    "changed",
    [
        {"resources": ["i-0other"]},
        {"results": [{"Estimated": False, "Groups": [{"Keys": ["i-0other"], "Metrics": {}}]}]},
        {"results": [{"Estimated": False, "Groups": [{"Keys": [INST], "Metrics": {"UnblendedCost": {"Amount": "NaN", "Unit": "USD"}}}]}]},
        {"retrievedAt": "later"},
    ],
)
def test_an_answer_about_something_else_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    report = billed(tmp_path, ANSWER | changed)
    assert report.exit == 1 and codes(report)[0] == ["E110"]


def test_a_bill_without_a_whole_chain_of_digests_does_not_lift_a_proof_above_it(tmp_path: Path) -> None:
    billed(tmp_path, ANSWER)
    report = verify.verify(tmp_path / "b", certificates=[PINNED])
    assert report.exit == 0 and report.tier == "recorded" and report.bill is not None
    assert "Billed for its machines" in report.text()


@pytest.mark.parametrize(
    ("amount", "comparison"), [("0.01", "below"), ("0.0566", "inside"), ("5", "above"), ("-1.5", "below"), ("1E-7", "below")]
)
def test_a_figure_lies_inside_below_or_above_the_bounds(amount: str, comparison: str) -> None:
    cost = {"Keys": [INST], "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": "USD"}}}
    answer = ANSWER | {"results": [{"Estimated": True, "Groups": [cost]}]}
    made = bill.build(state(story())["predicate"], b"", dumps(answer))["predicate"]
    assert made["comparison"] == comparison and "estimated" in bill.sentence(made)


def test_public_keys_are_read_as_the_aws_command_prints_them() -> None:
    listed = {"PublicKeyList": [{"Value": base64.b64encode(KEY).decode(), "Fingerprint": "x"}]}
    assert digests.keys_of(json.dumps(listed).encode()) == [KEY]
    for wrong in (b"", b"[]", b'{"PublicKeyList":[{}]}', b'{"PublicKeyList":[{"Value":"?"}]}'):
        with pytest.raises(ValueError, match="list-public-keys"):
            digests.keys_of(wrong)


def test_a_statement_that_does_not_say_when_it_began_is_refused_and_nothing_falls_over(tmp_path: Path) -> None:
    """Found by a mutation: the span of the digests was taken from a field that a statement may lack."""
    tape = rehearsed()
    recorded = events(tape)
    tape.aws |= copied(recorded) | logged(recorded, HOURS)
    for gone in (("startedAt",), ("startedAt", "endedAt")):
        made = state(tape)
        for name in gone:
            del made["predicate"]["run"][name]
        made["predicate"]["anchors"] = []
        folder = write(tmp_path / gone[-1], tape)
        (folder / "statement.dsse.json").write_bytes(sign.sign(made, keys()).raw)
        report = verify.verify(folder)
        assert report.exit == 1 and "E301" in {p.code for p in report.problems}


@pytest.mark.parametrize("value", [True, 5, None, [], {}])
@pytest.mark.parametrize(
    "field", ["digestS3Object", "digestS3Bucket", "digestEndTime", "digestStartTime", "logFiles", "signature", "bucket", "key"]
)
def test_a_digest_with_a_value_of_another_type_is_no_digest_and_nothing_falls_over(field: str, value: Any) -> None:
    """Found by mutation 20032790, and by asking the same of its neighbours."""
    tape = rehearsed()
    aws = logged(events(tape), HOURS)
    name = next(name for name in sorted(aws) if name.startswith(digests.DIGESTS) and name.endswith(".json.gz"))
    other = name.removesuffix(".json.gz") + ".sig.json"
    said, beside = json.loads(gzip.decompress(aws[name])), json.loads(aws[other])
    said |= {field: value} if field in said else {}
    beside |= {field: value} if field in beside else {}
    aws |= {name: gzip.compress(json.dumps(said).encode(), mtime=0), other: json.dumps(beside).encode()}
    found = digests.chained(aws, ["us-east-1"], 1763467200000, 1763470800000)
    digests.signed(found, [certificates.simulated_key()])
    assert found.wrong or (field == "logFiles" and value == [])
