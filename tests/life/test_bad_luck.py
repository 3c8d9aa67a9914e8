"""What goes wrong on a rented machine: one clear message, the documented exit code, everything seen gone, and a proof."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from provisioner.errors import Exit
from provisioner.guards import GUEST
from tests.life.conftest import Bench

OOM = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."

CASES: list[tuple[str, list[dict[str, Any]], Exit, str]] = [
    ("the driver is too old", [{"host": {"driver": "535.54"}}], Exit.FAILED, "535.54; the profile needs 570"),
    ("half the memory", [{"host": {"vram_mib": 11517}}], Exit.FAILED, "11517 MiB"),
    ("no GPU at all", [{"host": {"no_gpu": True}}], Exit.FAILED, "NVIDIA driver"),
    ("somebody else on the GPU", [{"host": {"other_gpu_process": True}}], Exit.FAILED, "other process"),
    ("the disk is full", [{"host": {"disk_free_gib": 1}}], Exit.FAILED, "GiB"),
    ("another host key", [{"host": {"wrong_host_key": True}}], Exit.FAILED, "host key"),
    ("the timer is not armed", [{"host": {"no_timer": True}}], Exit.FAILED, "guard guest-timer is not armed"),
    ("the server dies at start", [{"host": {"runtime_exit": OOM}}], Exit.FAILED, "no GPU memory for the KV cache"),
    ("the server listens for everybody", [{"host": {"bind_all": True}}], Exit.FAILED, "can be reached from other machines"),
    ("the server dies during the eval", [{"host": {"runtime_die_after_requests": 9}}], Exit.FAILED, "died during the eval"),
    ("the first answer is garbage", [{"host": {"answers": "garbage"}}], Exit.FAILED, "does not do its work"),
    (
        "no capacity anywhere",
        [{"action": "RunInstances", "kind": "error", "code": "InsufficientInstanceCapacity", "times": None}],
        Exit.REFUSED,
        "InsufficientInstanceCapacity",
    ),
    ("no permission", [{"action": "RunInstances", "kind": "error", "code": "UnauthorizedOperation"}], Exit.REFUSED, "not authorized"),
    ("the answer to the launch is lost", [{"action": "RunInstances", "kind": "lost"}], Exit.FAILED, "RunInstances"),
    (
        "the launch breaks before it is done",
        [{"action": "RunInstances", "kind": "error", "code": "InternalError"}],
        Exit.FAILED,
        "InternalError",
    ),
]


QUICK = ("the driver is too old", "no capacity anywhere", "the answer to the launch is lost")
"""The default suite plays these; the slow part plays all."""


@pytest.mark.parametrize(
    ("name", "faults", "code", "words"),
    [pytest.param(*c, id=c[0], marks=() if c[0] in QUICK else pytest.mark.slow) for c in CASES],
)
def test_it_ends_with_a_clear_message_and_nothing_left(
    name: str, faults: list[dict[str, Any]], code: Exit, words: str, bench: Bench
) -> None:
    ended = bench.run(faults=faults)
    assert ended.code == code, ended.story
    assert words.lower() in (ended.answer["error"]["what"] + ended.answer["error"]["why"]).lower()
    assert ended.answer["verdict"] == "released" and not bench.left()
    assert "nothing is running" in ended.answer["now"]
    assert "Traceback" not in ended.story
    now = ended.answer["error"]["next"]
    assert (
        now and "LEASE" not in now and all(lease == ended.answer["lease"] for lease in re.findall(r"gpulease (?:logs|report) (\S*)", now))
    )
    assert not now.startswith(("nvidia-smi", "gpulease release")), "the machine is gone, and so is the lease"
    assert bench.verify() == 0


@pytest.mark.slow
def test_samples_taken_so_far_are_kept_when_the_server_dies(bench: Bench) -> None:
    bench.run(faults=[{"host": {"runtime_die_after_requests": 12}}])
    lines = [json.loads(line) for line in (bench.folder.path / "samples.jsonl").read_text().splitlines()]
    answered = [one for one in lines if one.get("case") and not one["error"]]
    results = json.loads((bench.folder.path / "results.json").read_text())
    assert len(answered) >= 5 and results["complete"] is False
    assert (bench.folder.evidence / "samples.jsonl").is_file()


@pytest.mark.slow
def test_a_waived_guard_is_named_and_does_not_stop_the_run(bench: Bench) -> None:
    profile = bench.profile(waive=["guest-timer", "guest-twin", "guest-lease"])
    ended = bench.run(profile=profile, faults=[{"host": {"no_timer": True}}])
    assert ended.code == Exit.OK, ended.story
    assert {b["guard"]: b["state"] for b in bench.entries("guard")} == {
        "watchdog": "armed",
        "schedule": "read-back",
        **dict.fromkeys(GUEST, "waived"),
    }


def test_a_dropped_connection_is_made_again_and_no_case_is_lost(bench: Bench) -> None:
    ended = bench.run(faults=[{"host": {"drop_ssh_after_requests": 8, "drop_ssh_for_s": 2.5}}])
    assert ended.code in (Exit.OK, Exit.THRESHOLD), ended.story
    assert "connecting again" in ended.story
    stats = ended.answer["results"]["stats"]["host"]
    assert stats["sent"] >= 28


@pytest.mark.slow
def test_a_missed_threshold_ends_with_its_own_code_and_a_full_proof(bench: Bench) -> None:
    ended = bench.run(profile=bench.profile(thresholds={"accuracy_percent": 100}))
    assert ended.code == Exit.THRESHOLD, ended.story
    assert bench.entries("outcome")[-1] == {"outcome": "completed", "exit": 3}
    assert bench.verify() == 0


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_not_the_removal(bench: Bench) -> None:
    with bench.small_disk(kib=152):
        ended = bench.run()
        assert ended.code in (Exit.UNPROVEN, Exit.FAILED), ended.story
        assert "No space left" in ended.story + str(ended.answer)
    assert not bench.left()


@pytest.mark.slow
def test_no_room_for_the_reserve_launches_nothing(bench: Bench) -> None:
    ended = bench.run(file_limit=30_000)
    assert ended.code == Exit.REFUSED, ended.story
    assert "Nothing was launched" in ended.answer["error"]["what"]
    assert not [thing for thing in bench.cloud.truth() if thing.get("lease")]


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["html", "empty", "endless", "garbage"])
def test_a_model_that_answers_nonsense_is_figures_and_not_a_crash(answers: str, bench: Bench) -> None:
    profile = bench.profile(load={"timeout_s": 1, "concurrency": 16})
    process = bench.start(*bench.run_words(profile))
    assert bench.until(lambda: bench.stage("serve", "done") or process.poll() is not None)
    bench.cloud.faults([{"host": {"answers": answers}}])
    ended = bench.end(process)
    assert ended.code == Exit.THRESHOLD, ended.story
    assert ended.answer["results"]["stats"]["tunnel"]["failed"] + ended.answer["results"]["stats"]["tunnel"]["sent"] > 0
    assert not bench.left() and "Traceback" not in ended.story


@pytest.mark.slow
def test_two_runs_at_once_do_not_touch_each_other(bench: Bench) -> None:
    one, two = bench.start(*bench.run_words()), bench.start(*bench.run_words())
    ends = [bench.end(one), bench.end(two)]
    assert [e.code for e in ends] == [ends[0].code] * 2 and ends[0].code in (Exit.OK, Exit.THRESHOLD)
    assert ends[0].answer["lease"] != ends[1].answer["lease"]
    removed = [{b["id"] for e in bench.folders() if e.id == end.answer["lease"] for b in _removed(e)} for end in ends]
    assert removed[0] and removed[1] and not removed[0] & removed[1]
    assert not bench.left()


def _removed(folder: Any) -> list[dict[str, Any]]:
    from provisioner import journal as J

    return [e["body"] for e in J.read(folder.journal).entries if e["kind"] == "intent" and e["body"]["op"] == "remove"]
