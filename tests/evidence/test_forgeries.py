"""What the owner of the key can forge, by name. The owner signs anything; what is refused is what the journal denies.

The first table is the statement against its journal, consistently signed: all refused. The second is a journal
rewritten line by line, chain redone, statement derived from it and signed: at this tier some of those pass, and the
test says which, because a limit that is tested is a limit that is told. `limits` says the same in every statement
("client-signed-only"); stopping them takes what the provider itself recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from provisioner.evidence import bundle, chain, sign, statement, verify
from provisioner.evidence.history import Nonsense
from tests.evidence.bundles import files_of, forge, keys, state, write
from tests.evidence.journals import INST, PRODUCER, STORIES, Tape

Made = dict[str, Any]
Entries = list[dict[str, Any]]


def predicate(**changes: Any) -> Callable[[Made], None]:
    return lambda made: made["predicate"].update(changes)


def inside(*path: str | int, to: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        here = made["predicate"]
        for step in path[:-1]:
            here = here[step]
        here[path[-1]] = to

    return change


def without(*path: str | int) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        here = made["predicate"]
        for step in path[:-1]:
            here = here[step]
        del here[path[-1]]

    return change


def limit_dropped(code: str) -> Callable[[Made], None]:
    return lambda made: made["predicate"]["limits"].remove(code)


def cheaper(made: Made) -> None:
    for row in made["predicate"]["cost"]["components"]:
        row.update(loMicroUsd=row["loMicroUsd"] // 2, bestMicroUsd=row["bestMicroUsd"] // 2, hiMicroUsd=row["hiMicroUsd"] // 2)
    cost = made["predicate"]["cost"]
    cost.update({name: sum(row[f"{name.removeprefix('total')[:1].lower()}{name.removeprefix('total')[1:]}"] for row in cost["components"])
                 for name in ("totalLoMicroUsd", "totalBestMicroUsd", "totalHiMicroUsd")})  # fmt: skip


STATEMENTS: dict[str, tuple[str, Callable[[Made], object], str]] = {
    "clean although held": ("held", predicate(clean=True), "E304"),
    "clean although open": ("unproven_open_intent", predicate(clean=True), "E302"),
    "clean although leaving": ("leaving", predicate(clean=True), "E304"),
    "clean and released although held": ("held", predicate(clean=True, verdict="released"), "E304"),
    "verdict made better": ("held", predicate(verdict="released"), "E301"),
    "outcome made better": ("failed_verify", inside("run", "outcome", to="completed"), "E301"),
    "real although simulated": ("rehearsal", predicate(simulated=False), "E301"),
    "simulation left out of the limits": ("rehearsal", limit_dropped("simulated"), "E301"),
    "a limit left out": ("normal", limit_dropped("client-signed-only"), "E301"),
    "another limit left out": ("released_after_lost_answer", limit_dropped("lost-answer"), "E301"),
    "stopped earlier": ("normal", inside("instances", 0, "terminateAcceptedAt", to="2026-11-18T11:08:00.500Z"), "E301"),
    "launched later": ("normal", inside("instances", 0, "launchTime", to="2026-11-18T11:10:00Z"), "E301"),
    "seen terminated although not": ("leaving", inside("instances", 0, "terminatedFirstSeenAt", to="2026-11-18T11:12:00.000Z"), "E301"),
    "another instance": ("normal", inside("instances", 0, "id", to="i-00000000000000000"), "E301"),
    "a smaller machine": ("normal", inside("instances", 0, "type", to="t3.micro"), "E301"),
    "an instance left out": ("normal", predicate(instances=[]), "E301"),
    "a refused launch left out": ("refused_then_launched", without("instances", 0), "E301"),
    "a resource left out": ("held", without("resources", 1), "E301"),
    "a resource called deleted": ("held", inside("resources", 1, "final", to="deleted"), "E301"),
    "a sweep made empty": ("held", inside("sweeps", 1, "found", to=0), "E301"),
    "a class called checked": ("normal", inside("sweeps", 0, "classes", 0, "ours", to=0), "E301"),
    "something new left out": ("somebody_else", inside("unfiltered", "classes", 1, "newUnexplained", to=0), "E301"),
    "a list that was refused called whole": ("somebody_else", inside("unfiltered", "classes", 5, "checked", to=True), "E301"),
    "both lists left out": ("somebody_else", without("unfiltered"), "E301"),
    "sweeps further apart": ("normal", predicate(settleSeconds=900), "E301"),
    "a guard called drilled": ("normal", inside("guards", 0, "tested", to=True), "E301"),
    "a guard added": ("normal", lambda m: m["predicate"]["guards"].append({"kind": "scheduler", "seq": 1, "tested": False}), "E301"),
    "stopped by us although by the guest": ("guest_powered_off", inside("instances", 0, "stopCause", to="client"), "E301"),
    "cheaper, with sums that agree": ("normal", cheaper, "E401"),
    "a lower price": ("normal", inside("cost", "prices", 0, "microUsdPerHour", to=1), "E401"),
    "an upper bound although open": ("held", inside("cost", "totalHiMicroUsd", to=50_000), "E401"),
    "billed": ("normal", inside("cost", "basis", to="simulated-list-price"), "E401"),
    "another run's id": ("normal", inside("run", "id", to="r-20261118t120640z-00000000"), "E301"),
    "another profile": ("normal", inside("run", "profile", "name", to="big"), "E301"),
    "a larger budget": ("normal", inside("run", "budgetMicroUsd", to=99_000_000), "E301"),
    "better answers": ("normal", inside("evaluation", "ok", to=12), "E301"),
    "an anchor that is not in the journal": ("normal", inside("anchors", 0, "headPrefix", to="0" * 32), "E301"),
    "CloudTrail claimed": ("normal", inside("corroboration", "cloudtrailEvents", to=4), "E301"),
    "identity claimed": ("normal", inside("corroboration", "iid", to="present"), "E301"),
    "a torn tail left out": ("recovered_by_watchdog", inside("journal", "tornTails", to=[]), "E301"),
    "more records than there are": ("normal", inside("journal", "records", to=900), "E202"),
    "fewer records than there are": ("normal", inside("journal", "records", to=2), "E301"),
    "true written as one": ("normal", predicate(clean=1), "E110"),
    "a field nobody knows": ("normal", predicate(awsConfirmed=True), "E110"),
    "a float": ("normal", inside("settleSeconds", to="2.5"), "E110"),
    "no schema version": ("normal", without("schemaMinor"), "E110"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_signed_statement_that_its_journal_does_not_lead_to_is_refused(name: str, tmp_path: Path) -> None:
    story, change, code = STATEMENTS[name]
    report = verify.verify(forge(tmp_path / "b", story, change))
    assert report.exit == 1 and code in [p.code for p in report.problems], report.text()
    assert report.text().startswith(("VERDICT  NOT VERIFIED", "VERDICT  SIMULATED, NOT VERIFIED"))


def test_a_message_names_the_field_both_values_and_the_record(tmp_path: Path) -> None:
    report = verify.verify(forge(tmp_path / "b", "normal", inside("instances", 0, "type", to="t3.micro")))
    assert "instances[0].type is t3.micro in the statement and g6.xlarge in journal record 5." in report.text()
    report = verify.verify(forge(tmp_path / "c", "held", inside("resources", 1, "final", to="deleted")))
    assert "resources[1].final is deleted in the statement and present in journal record 5." in report.text()


def test_the_reasons_why_it_is_not_clean_are_given_one_by_one(tmp_path: Path) -> None:
    held = verify.verify(forge(tmp_path / "a", "held", predicate(clean=True)))
    assert any(p.code == "E305" and INST in p.message and "nothing shows that it is gone" in p.message for p in held.problems)
    lost = verify.verify(forge(tmp_path / "b", "unproven_open_intent", predicate(clean=True)))
    said = lost.text()
    assert "intent 3 (create instance) has no outcome. A proof cannot be clean with an open intent." in said
    assert '"clean" is claimed, but instance was not checked in us-east-1: DescribeInstances: AccessDenied.' in said


def rewrite(folder: Path, story: str, change: Callable[[Entries], object], *, tokens: bool = False) -> Path:
    """The whole journal again, chain redone, and an honest statement of it, signed. With `tokens`, those are redone too."""
    tape: Tape = STORIES[story]()
    entries = tape.entries
    change(entries)
    head, lines = "0" * 64, []
    renamed: dict[str, str] = {}
    for seq, entry in enumerate(entries):
        entry.update(prev=head, seq=seq)
        token = entry["body"].get("token")
        if tokens and token:
            # What the provider recorded is the old token: this is the lie that its log would show.
            entry["body"]["token"] = renamed.setdefault(token, f"{token.split('-')[0]}-{seq}-{head[:32]}")
        lines.append(rfc8785.dumps(entry) + b"\n")
        head = hashlib.sha256(lines[-1]).hexdigest()
    journal, files = b"".join(lines), files_of(tape)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    made = statement.build(chain.read(journal).entries, digests, producer=PRODUCER, results=files.get("results.json"))
    bundle.write(folder, made, sign.sign(made, keys()), journal, files)
    return folder


def body(kind: str, nth: int = 0, **changes: Any) -> Callable[[Entries], None]:
    return lambda entries: [e for e in entries if e["kind"] == kind][nth]["body"].update(changes)


def retold_but_for_the_tokens(entries: Entries) -> None:
    entries[0]["body"]["budgetMicroUsd"] = 7


def cut(entries: Entries) -> None:
    del entries[-4:]


def without_kind(kind: str) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        entries[:] = [e for e in entries if e["kind"] != kind]

    return change


def dates_turned(entries: Entries) -> None:
    sweeps = [e["body"] for e in entries if e["kind"] == "sweep"]
    sweeps[0]["providerDate"], sweeps[-1]["providerDate"] = sweeps[-1]["providerDate"], sweeps[0]["providerDate"]


REFUSED_JOURNALS: dict[str, tuple[str, Callable[[Entries], object], str]] = {
    "anything before a create, tokens left alone": ("normal", retold_but_for_the_tokens, "E512"),
    "answers' dates in another order": ("normal", dates_turned, "E204"),
}


@pytest.mark.parametrize("name", REFUSED_JOURNALS)
def test_a_rewritten_journal_that_contradicts_itself_is_refused(name: str, tmp_path: Path) -> None:
    story, change, code = REFUSED_JOURNALS[name]
    report = verify.verify(rewrite(tmp_path / "b", story, change))
    assert report.exit == 1 and code in [p.code for p in report.problems], report.text()


WEAKER: dict[str, tuple[str, Callable[[Entries], object], str]] = {
    "the end cut off before it was signed": ("normal", cut, "no-verdict"),
    "the verdict changed to released": ("held", body("verdict", verdict="released"), "resource-not-gone"),
    "the sweeps left out": ("static", without_kind("sweep"), "too-few-sweeps"),
    "a sweep's class called unchecked": (
        "static",
        lambda e: [s["body"]["classes"][0].update(checked=False) for s in e if s["kind"] == "sweep"],
        "too-few-sweeps",
    ),
    "the seal left out": ("failed_verify", without_kind("seal"), "not-sealed"),
}


@pytest.mark.parametrize("name", WEAKER)
def test_a_rewritten_journal_that_says_less_is_a_statement_that_claims_less(name: str, tmp_path: Path) -> None:
    story, change, code = WEAKER[name]
    report = verify.verify(rewrite(tmp_path / "b", story, change))
    assert report.predicate is not None and code in report.predicate["limits"]
    if code != "not-sealed":
        assert not report.predicate["clean"]


def cheap(entries: Entries) -> None:
    for line in entries[0]["body"]["quote"]["lines"]:
        line["microUsdPerHour"] = 1


def real(entries: Entries) -> None:
    entries[0]["body"].update(simulated=False, settings={"region": "us-east-1"})
    for entry in entries[-5:]:
        entry["at"]["monoMs"] += 2000  # and waited as a real run has to


def another_machine(entries: Entries) -> None:
    for entry in entries:
        if entry["body"].get("id") == INST:
            entry["body"]["id"] = "i-0ffffffffffffffff"


def terminated(entries: Entries) -> None:
    """The machine is still there; the journal is told as if it had gone."""
    spare = STORIES["failed_verify"]().entries
    entries[:] = spare


NOT_STOPPED_AT_THIS_TIER: dict[str, tuple[str, Callable[[Entries], object]]] = {
    "a lower price per hour": ("normal", cheap),
    "a kinder outcome": ("failed_verify", body("outcome", outcome="completed")),
    "a rehearsal told as a real run": ("rehearsal", real),
    "another machine's id": ("normal", another_machine),
    "a machine that is still there told as gone": ("held", terminated),
}


@pytest.mark.parametrize("name", NOT_STOPPED_AT_THIS_TIER)
def test_a_whole_consistent_lie_is_not_stopped_at_this_tier_and_the_statement_says_so(name: str, tmp_path: Path) -> None:
    story, change = NOT_STOPPED_AT_THIS_TIER[name]
    report = verify.verify(rewrite(tmp_path / "b", story, change, tokens=True))
    assert report.exit == 0 and report.text().startswith("VERDICT  client-signed. ")
    assert "that the client did not lie while it ran" in report.text()


def test_a_forger_without_the_key_gets_nowhere(tmp_path: Path) -> None:
    folder = rewrite(tmp_path / "b", "held", body("verdict", verdict="released"))
    honest = verify.verify(folder).keyid
    tape = STORIES["normal"]()
    made = statement.build(tape.entries, {n: hashlib.sha256(d).hexdigest() for n, d in files_of(tape).items()}, producer=PRODUCER)
    bundle.write(folder, made, sign.sign(made, tmp_path / "forger"), tape.bytes, files_of(tape))
    report = verify.verify(folder, trusted_keys=[honest])
    assert report.exit == 2 and report.problems[0].code == "E102"


def test_a_bundle_put_together_from_two_honest_ones_is_refused(tmp_path: Path) -> None:
    from tests.evidence.bundles import copy

    one, two = copy("normal", tmp_path / "one"), copy("held", tmp_path / "two")
    for name in ("journal.jsonl", "statement.dsse.json", "results.json"):
        mixed = copy("normal", tmp_path / f"mixed-{name}")
        (mixed / name).write_bytes((two / name if (two / name).exists() else one / "samples.jsonl").read_bytes())
        assert verify.verify(mixed).exit == 1


def test_an_answer_without_its_question_cannot_even_be_stated(tmp_path: Path) -> None:
    with pytest.raises(Nonsense):
        rewrite(tmp_path / "b", "normal", without_kind("intent"))


def test_answers_that_are_counted_and_not_handed_over_are_refused(tmp_path: Path) -> None:
    """Found by mutation: without its results a statement was not derived again, and nothing else objected."""

    def drop(made: Made) -> None:
        made["subject"] = [subject for subject in made["subject"] if subject["name"] != "results.json"]

    report = verify.verify(forge(tmp_path / "b", "normal", drop))
    assert report.exit == 1 and [p.code for p in report.problems] == ["E121"]


def test_a_statement_without_its_beginning_is_refused_and_nothing_falls_over(tmp_path: Path) -> None:
    """Found by mutation: the page of such a statement cannot be rendered, and was asked for."""
    folder, made = write(tmp_path / "b", STORIES["held"]()), state(STORIES["held"]())
    without("run", "startedAt")(made)
    (folder / "statement.dsse.json").write_bytes(sign.sign(made, keys()).raw)
    report = verify.verify(folder)
    assert report.exit == 1 and [p.code for p in report.problems] == ["E301"]


def test_a_stage_whose_detail_is_no_object_falls_nobody_over(tmp_path: Path) -> None:
    """Found by mutation, seed 108961."""
    folder = rewrite(tmp_path / "b", "normal", lambda entries: entries[-1].update(kind="stage", body={"stage": "connect", "detail": "x"}))
    assert verify.verify(folder).exit == 0
