"""What a journal's statement says, and above all what it does not: one test a story, and the rules of the format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from provisioner.evidence import chain, limits, predicate, schema, statement
from provisioner.evidence.canonical import Malformed, dumps, loads
from provisioner.evidence.compare import different
from provisioner.evidence.history import Nonsense
from tests.evidence import journals
from tests.evidence.bundles import state
from tests.evidence.journals import INST, PRODUCER, REGION, SG, STORIES, Tape

GOLDEN = Path(__file__).parent / "golden"


def said(tape: Tape) -> dict[str, Any]:
    return dict(state(tape)["predicate"])


def nonsense(tape: Tape) -> str:
    with pytest.raises(Nonsense) as caught:
        state(tape)
    return caught.value.problem.message


@pytest.mark.parametrize("story", STORIES)
def test_the_statement_of_each_story_is_the_one_kept_in_the_repository(story: str) -> None:
    """A changed byte here is a changed format: old proofs would no longer verify."""
    kept = (GOLDEN / f"{story}.json").read_bytes()
    assert dumps(state(STORIES[story]())) + b"\n" == kept


@pytest.mark.parametrize("story", STORIES)
def test_every_statement_fits_the_published_schema_by_our_checker_and_by_the_standard_one(story: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = json.loads((Path(__file__).parents[2] / "docs/schema/gpu-run-shutdown-v1.json").read_text())
    assert published == predicate.published()
    made = state(STORIES[story]())
    assert schema.first_error(made, predicate.STATEMENT) is None
    jsonschema.Draft202012Validator(published).validate(made)


@pytest.mark.parametrize("story", STORIES)
def test_nothing_signed_is_a_float_and_every_limit_has_its_words(story: str) -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict | list):
            return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
        return [value]

    made = state(STORIES[story]())
    assert {type(leaf) for leaf in leaves(made)} <= {str, int, bool}
    assert set(made["predicate"]["limits"]) <= set(limits.LIMITS)
    assert "client-signed-only" in made["predicate"]["limits"]


def test_the_subject_is_the_journal_first_and_then_each_file_by_its_digest() -> None:
    tape = journals.normal()
    subject = state(tape)["subject"]
    assert [s["name"] for s in subject] == ["journal.jsonl", "results.json", "samples.jsonl"]
    assert subject[0]["digest"]["sha256"] == hashlib.sha256(tape.bytes).hexdigest()


def test_a_normal_run_is_clean_and_its_instance_has_all_its_times() -> None:
    p = said(journals.normal())
    assert p["clean"] and p["verdict"] == "released" and p["settleSeconds"] >= 1 and not p["simulated"]
    (one,) = p["instances"]
    assert one["id"] == INST and one["type"] == "g6.xlarge" and one["stopCause"] == "client"
    times = [one[n] for n in ("requestedAt", "runningFirstSeenAt", "terminateRequestedAt", "terminateAcceptedAt", "terminatedFirstSeenAt")]
    assert times == sorted(times)
    assert one["terminateAcceptedAtUncertaintyMs"] == 500
    assert one["requestIds"].keys() == {"run", "terminate"}
    assert {r["class"]: r["final"] for r in p["resources"]} == dict.fromkeys(
        ("security-group", "instance", "volume", "network-interface"), "deleted"
    )
    assert p["evaluation"] == {"promptsTotal": 12, "ok": 10, "failed": 2, "resultsSha256": hashlib.sha256(journals.results()).hexdigest()}


def test_the_cost_is_bounds_that_hold_the_truth() -> None:
    cost = said(journals.normal())["cost"]
    assert cost["totalLoMicroUsd"] <= cost["totalBestMicroUsd"] <= cost["totalHiMicroUsd"]
    # The story's machine runs from about 2 s to 268 s after the start: 266 s at 804,800 micro-dollars an hour.
    (instance,) = (c for c in cost["components"] if c["component"] == "instance")
    assert instance["loMicroUsd"] <= 804_800 * 264 // 3600 and instance["hiMicroUsd"] >= 804_800 * 264 // 3600
    assert cost["totalHiMicroUsd"] == sum(c["hiMicroUsd"] for c in cost["components"])


def test_a_rehearsal_says_so_and_so_does_any_endpoint_that_somebody_named() -> None:
    p = said(journals.rehearsal())
    assert p["simulated"] and "simulated" in p["limits"] and p["cost"]["basis"] == "simulated-list-price"
    quiet = Tape().genesis(settings={"region": REGION, "endpoint": "http://127.0.0.1:1"}, simulated=False).verdict()
    assert said(quiet)["simulated"]


def test_a_static_host_is_not_ours_and_its_cost_has_no_bound() -> None:
    p = said(journals.static())
    assert p["clean"] and p["instances"] == [] and "host-not-ours" in p["limits"]
    assert "totalHiMicroUsd" not in p["cost"] and p["corroboration"]["iid"] == "absent(not-aws)"


def test_a_run_that_failed_its_check_can_still_be_clean() -> None:
    p = said(journals.failed_verify())
    assert p["clean"] and p["run"]["outcome"] == "failed" and "evaluation" not in p


def test_a_recovery_is_named_with_what_the_crash_tore_off() -> None:
    p = said(journals.recovered_by_watchdog())
    assert p["clean"] and p["instances"][0]["stopCause"] == "recovery"
    assert {"owner-died", "torn-tail"} <= set(p["limits"]) and len(p["journal"]["tornTails"]) == 1


def test_a_later_look_by_anybody_is_no_takeover() -> None:
    tape = journals.normal()
    tape.add("recovered", by="recheck")
    assert "owner-died" not in said(tape.quiet().verdict().end(files=journals.FILES))["limits"]


def test_a_machine_still_there_has_no_upper_bound_of_cost() -> None:
    p = said(journals.held())
    assert not p["clean"] and p["verdict"] == "held"
    assert {"cost-open", "resource-not-gone", "too-few-sweeps"} <= set(p["limits"])
    assert "totalHiMicroUsd" not in p["cost"] and "totalBestMicroUsd" not in p["cost"]


def test_an_open_create_is_never_clean_and_is_listed_as_a_resource_nobody_knows() -> None:
    p = said(journals.unproven_open_intent())
    assert not p["clean"] and "open-intent" in p["limits"]
    assert [(r["class"], r["final"]) for r in p["resources"]] == [("instance", "unknown")]


def test_a_lost_answer_is_settled_by_waiting_longer_than_the_provider_needs() -> None:
    p = said(journals.released_after_lost_answer())
    assert p["clean"] and p["settleSeconds"] >= 300 and "lost-answer" in p["limits"] and "open-intent" not in p["limits"]
    assert p["resources"][0]["final"] == "absent" and p["instances"][0]["answer"] == "unknown"


def test_a_lost_answer_is_not_settled_by_waiting_less() -> None:
    tape = Tape().genesis()
    tape.intent("instance")
    p = said(tape.quiet(290).verdict(settle=300))
    assert not p["clean"] and {"open-intent", "not-quiet-long-enough"} <= set(p["limits"])


def test_a_lost_answer_whose_machine_shows_up_under_its_token_is_answered() -> None:
    p = said(journals.lost_answer_found_by_token())
    assert p["clean"] and p["instances"][0]["id"] == INST and not {"lost-answer", "open-intent"} & set(p["limits"])


def test_a_machine_whose_launch_time_nobody_said_has_no_upper_bound_of_cost() -> None:
    assert "totalHiMicroUsd" not in said(journals.lost_answer_found_by_token())["cost"]


def test_a_refused_launch_is_listed_and_costs_nothing() -> None:
    p = said(journals.refused_then_launched())
    assert [i["answer"] for i in p["instances"]] == ["failed", "done"]
    assert p["instances"][0]["refusal"] == "InsufficientInstanceCapacity" and "id" not in p["instances"][0]
    assert {c["resource"] for c in p["cost"]["components"]} == {INST, journals.VOL}


def test_a_machine_that_switched_itself_off_was_stopped_by_its_guard() -> None:
    assert said(journals.guest_powered_off())["instances"][0]["stopCause"] == "guard-guest"


def test_a_run_that_never_launched_makes_no_claim_about_a_machine() -> None:
    p = said(journals.never_launched())
    assert not p["clean"] and "never-launched" in p["limits"] and p["cost"]["totalHiMicroUsd"] == 0


def test_a_rebuilt_journal_is_never_clean() -> None:
    p = said(journals.rebuilt())
    assert not p["clean"] and "journal-rebuilt" in p["limits"] and p["cost"]["unpriced"]


def test_one_empty_look_is_not_enough_and_two_at_once_are_one() -> None:
    tape = Tape().genesis().launch().run().release()
    assert "too-few-sweeps" in said(tape.verdict())["limits"] or not said(tape)["clean"]
    twice = Tape().genesis().launch().run().release()
    assert not said(twice.quiet(0.1).verdict())["clean"]


def test_a_sighting_between_two_empty_looks_starts_the_count_anew() -> None:
    tape = Tape().genesis().launch().run().release()
    tape.sweep()
    tape.wait(5)
    tape.observe("volume", "vol-9", "here", "available")
    tape.sweep()
    p = said(tape.verdict())
    assert not p["clean"] and "too-few-sweeps" in p["limits"]


def test_a_look_that_failed_between_two_empty_ones_starts_the_count_anew() -> None:
    tape = Tape().genesis().launch().run().release()
    tape.sweep()
    tape.wait(5)
    tape.blind()
    tape.wait(5)
    tape.sweep()
    assert not said(tape.verdict())["clean"]


@pytest.mark.parametrize("kind", ["instance", "volume", "network-interface", "security-group"])
def test_a_mandatory_kind_that_was_not_checked_is_never_clean(kind: str) -> None:
    kinds = tuple(k for k in journals.KINDS if k != kind)
    for how in ({"unchecked": {kind: "AccessDenied"}}, {}):
        p = said(Tape().genesis().launch().run().release().quiet(kinds=kinds, **how).verdict())
        assert not p["clean"] and "too-few-sweeps" in p["limits"]


def test_another_kind_that_was_not_checked_is_a_limit_and_not_a_contradiction() -> None:
    p = said(Tape().genesis().launch().run().release().quiet(unchecked={"snapshot": "AccessDenied"}).verdict())
    assert p["clean"] and "class-unchecked" in p["limits"]


def test_a_region_where_something_was_made_has_to_be_looked_at_too() -> None:
    tape = Tape().genesis()
    intent = tape.intent("instance", region="eu-west-1")
    tape.add("failed", op="create", intentSeq=intent, class_="instance", code="InsufficientInstanceCapacity", why="none")
    assert not said(tape.launch().run().release().quiet().verdict())["clean"]


def test_a_clock_that_was_set_forward_does_not_make_a_wait_longer() -> None:
    tape = Tape().genesis()
    tape.intent("instance")
    for entry_s in (0, 20):
        tape.wait(entry_s)
        rows = [{"class": k, "region": REGION, "checked": True, "found": 0} for k in journals.KINDS]
        tape.add("sweep", checked=True, classes=rows, found=0, requestIds=[])
        tape.now += 3_600_000
    assert said(tape.verdict())["settleSeconds"] == 20


def test_without_a_provider_date_the_times_have_no_uncertainty_and_the_statement_says_why() -> None:
    p = said(journals.static())
    assert "local-clock" in p["limits"] and "startedAtUncertaintyMs" not in p["run"] and p["clock"]["source"] == "local"


def test_local_times_are_moved_onto_the_providers_clock() -> None:
    clock = said(journals.normal())["clock"]
    low, high = clock["awsOffsetMs"] - clock["awsOffsetUncertaintyMs"], clock["awsOffsetMs"] + clock["awsOffsetUncertaintyMs"]
    assert low <= journals.AHEAD_MS <= high


def test_a_token_is_a_commitment_to_what_was_written_before_it() -> None:
    tape = journals.normal()
    for anchor in said(tape)["anchors"]:
        assert tape.entries[anchor["journalSeq"]]["prev"].startswith(anchor["headPrefix"])


def test_waived_and_failed_guards_are_named() -> None:
    tape = Tape().genesis(waived=["guest-lease"])
    tape.add("guard", guard="guest-timer", state="failed")
    p = said(tape.verdict())
    assert {"guard-waived", "guard-failed"} <= set(p["limits"])
    assert {g["kind"] for g in p["guards"]} == {"guest-lease", "guest-timer"}


def test_a_run_on_another_type_than_the_quote_was_made_for_has_no_price() -> None:
    tape = Tape().genesis()
    intent = tape.intent("instance", type="g6.2xlarge")
    tape.done(intent, INST, type="g6.2xlarge", launchTime=tape.date())
    p = said(tape.run("g6.2xlarge").release().quiet().verdict())
    assert "cost-unpriced" in p["limits"] and INST in p["cost"]["unpriced"] and "totalHiMicroUsd" not in p["cost"]


def test_many_sweeps_are_cut_to_the_last_and_the_statement_says_so() -> None:
    tape = Tape().genesis().launch().run().release()
    for _ in range(60):
        tape.sweep()
        tape.wait(3)
    p = said(tape.verdict())
    assert p["clean"] and len(p["sweeps"]) == statement.SWEEPS_LISTED and "sweeps-omitted" in p["limits"]


def test_an_answer_to_a_question_that_was_never_asked_is_nonsense() -> None:
    tape = Tape().genesis()
    tape.add(
        "done", op="create", intentSeq=0, class_="instance", id=INST, phase="here", state="running", billed=True, region=REGION, facts={}
    )
    assert "$journal[1].body.intentSeq" in nonsense(tape)


def test_an_intent_that_was_answered_twice_is_nonsense() -> None:
    tape = Tape().genesis()
    intent = tape.intent("instance")
    tape.done(intent, INST)
    tape.done(intent, "i-2")
    assert "answered in record 2 already" in nonsense(tape)


def test_a_removal_answered_about_another_id_is_nonsense() -> None:
    tape = Tape().genesis().launch()
    seq = tape.add("intent", op="remove", class_="instance", id=INST)
    tape.add("done", op="remove", intentSeq=seq, class_="instance", id="i-2")
    assert "about another id" in nonsense(tape)


def test_a_second_genesis_or_none_is_nonsense() -> None:
    tape = Tape().genesis()
    assert "one genesis" in nonsense(tape.genesis())
    bare = Tape()
    bare.add("outcome", outcome="completed", exit=0)
    assert "begins with its genesis" in nonsense(bare)


@pytest.mark.parametrize(
    ("kind", "body", "path"),
    [
        ("observe", {"class_": "instance", "id": 7, "phase": "gone"}, "id"),
        ("observe", {"class_": "instance", "id": "i", "phase": "finished"}, "phase"),
        ("observe", {"class_": "instance", "id": "i", "phase": "gone", "facts": []}, "facts"),
        ("verdict", {"verdict": "clean"}, "verdict"),
        ("verdict", {"verdict": "released", "settleSeconds": True}, "settleSeconds"),
        ("sweep", {"checked": 1, "classes": [], "found": 0}, "checked"),
        ("sweep", {"checked": True, "classes": [{"class": "instance"}], "found": 0}, "classes[0].region"),
        ("guard", {"guard": "watchdog", "state": "fine"}, "state"),
        ("seal", {"files": {"results.json": "short"}}, "files.results.json"),
        ("intent", {"op": "destroy", "class_": "instance"}, "op"),
        ("intent", {"op": "create", "class_": "instance"}, "token"),
    ],
)
def test_a_body_of_another_shape_is_named_by_its_field(kind: str, body: dict[str, Any], path: str) -> None:
    tape = Tape().genesis()
    tape.add(kind, **body)
    assert f"$journal[1].body.{path}" in nonsense(tape)


@pytest.mark.parametrize(
    "facts", [{"launchTime": "soon"}, {"launchTime": "2026-11-18"}, {"providerDate": "9999-99-99"}, {"stateReason": "x" * 4000}]
)
def test_hostile_facts_are_left_out_or_refused_and_never_fall_over(facts: dict[str, Any]) -> None:
    tape = Tape().genesis().launch()
    tape.observe("instance", INST, "here", "running", **facts)
    try:
        state(tape)
    except Nonsense as e:
        assert e.problem.code == "E110"


def test_a_seal_that_names_another_file_than_is_there_is_a_contradiction() -> None:
    tape = journals.normal()
    with pytest.raises(Nonsense) as caught:
        statement.build(chain.read(tape.bytes).entries, {"results.json": "0" * 64}, producer=PRODUCER)
    assert caught.value.problem.code == "E301" and "results.json" in caught.value.problem.message


def test_results_are_counted_only_when_they_are_the_ones_in_the_digests() -> None:
    tape = Tape().genesis().verdict()
    with pytest.raises(Nonsense) as caught:
        statement.build(tape.entries, {"results.json": "0" * 64}, producer=PRODUCER, results=journals.results())
    assert caught.value.problem.code == "E120"


def test_a_group_left_behind_is_not_clean_however_often_the_verdict_says_released() -> None:
    tape = Tape().genesis().launch().run()
    tape.remove("instance", INST)
    tape.wait(20)
    tape.observe("instance", INST, "gone", "terminated")
    tape.sweep({"security-group": 1})
    tape.wait(3)
    tape.sweep({"security-group": 1})
    p = said(tape.verdict("released"))
    assert not p["clean"] and {r["id"]: r["final"] for r in p["resources"]}[SG] == "present"


@pytest.mark.parametrize("verdict", ["leaving", "held", "unproven"])
def test_only_a_verdict_of_released_can_be_clean_whatever_was_seen(verdict: str) -> None:
    assert not said(Tape().genesis().launch().run().release().quiet().verdict(verdict))["clean"]


def test_a_rebuilt_journal_is_not_clean_even_when_it_says_released() -> None:
    tape = Tape()
    tape.add("genesis", lease=journals.LEASE, provider="aws", settings={"region": REGION}, rebuilt=True)
    tape.observe("instance", INST, "gone", "terminated")
    assert not said(tape.quiet().verdict())["clean"]


def test_results_with_two_meanings_are_not_counted() -> None:
    twice = b'{"scores":[],"scores":[{"ok":true}]}'
    with pytest.raises(Nonsense) as caught:
        statement.build(Tape().genesis().entries, {"results.json": hashlib.sha256(twice).hexdigest()}, producer=PRODUCER, results=twice)
    assert "a key is given twice" in caught.value.problem.message


def test_true_and_one_are_two_claims_and_deep_nesting_is_none() -> None:
    assert different({"clean": 1}, {"clean": True}) == (("clean",), 1, True)
    with pytest.raises(Malformed, match="nested too deeply"):
        loads(b"[" * 60 + b"]" * 60)


def test_guards_are_told_of_the_last_machine_and_those_of_one_before_it_are_not_lent_to_it() -> None:
    tape = Tape().genesis().guards()
    fires = "2026-11-21T15:00:00.000Z"
    tape.done(tape.intent("instance"), "i-0aa")
    tape.add("guard", guard="guest-timer", state="read-back", firesAt=fires)

    def guards() -> list[str]:
        return [guard["kind"] for guard in statement.build(tape.entries, {}, producer=PRODUCER)["predicate"]["guards"]]

    assert guards() == ["watchdog", "guest-timer"]
    tape.intent("instance")
    assert guards() == ["watchdog"]
    tape.add("guard", guard="guest-timer", state="read-back", firesAt=fires)
    assert guards() == ["watchdog", "guest-timer"]
