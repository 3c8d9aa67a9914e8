"""The format of a playbook, what is refused with its line, and what running one does, with real scripts."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import HostError, RefusedError, RunError
from provisioner.remote.facts import FACTS
from provisioner.remote.play import Player, expect, play, playing, undo
from provisioner.remote.playbook import TYPES, Book, Expect, load, resolve, schema, settle
from provisioner.secret import Secret
from tests.playbooks.localhost import LocalHost

HEAD = "playbook: 1\nname: test\nabout: A test.\n"
SHIPPED = ("serve", "sglang", "verify-nvidia", "vllm")


def book(steps: str, values: str = "") -> Book:
    return load(HEAD + (f"values:\n{values}" if values else "") + f"steps:\n{steps}", "test.yaml")


def quick(seconds: float) -> None:
    time.sleep(min(seconds, 0.02))


def run(one: Book, host: LocalHost, values: dict[str, str] | None = None, **given: Any) -> Any:
    return play(one, host, values or {}, sleep=quick, **given)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_playbook_can_be_read(name: str) -> None:
    assert resolve(name).doc.name == name


def test_all_shipped_playbooks_are_known_here() -> None:
    with pytest.raises(RefusedError) as caught:
        resolve("no-such-thing")
    assert caught.value.why == f"shipped are: {', '.join(SHIPPED)}"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_script_is_posix_and_never_puts_a_value_outside_quotes(name: str) -> None:
    import subprocess

    one = resolve(name)
    for step in one.doc.steps:
        for script in (step.run, step.wait_until, step.undo):
            if script is None:
                continue
            assert subprocess.run(["sh", "-n", "-c", script], check=False, capture_output=True).returncode == 0
            for value in one.doc.values:
                bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", script)
                assert not re.search(rf"\$\{{?{value}\b", bare), f"{name}: {step.name}: ${value} outside of quotes"


def test_a_playbook_is_read_from_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(HEAD + "steps: [{name: a, run: 'true'}]\n")
    assert resolve(str(tmp_path / "mine.yaml")).doc.name == "test"
    with pytest.raises(RefusedError, match="cannot read the playbook"):
        resolve(str(tmp_path / "other.yaml"))


STEP = "  - {name: a, run: 'true'}\n"
WRONG = {
    "two verbs": ("  - {name: a, run: 'true', wait-until: 'true'}\n", "test.yaml:5: steps.0: has 2 verbs"),
    "no verb": ("  - {name: a, timeout: 5}\n", "has 0 verbs"),
    "two of a name": (STEP + STEP, "two steps are called 'a'"),
    "unknown key": ("  - {name: a, run: 'true', when: x}\n", "test.yaml:5: steps.0.when: Extra inputs"),
    "time-out of nothing": ("  - {name: a, run: 'true', timeout: 0}\n", "steps.0.timeout"),
    "time-out as a word": ("  - {name: a, run: 'true', timeout: long}\n", "steps.0.timeout"),
    "too many retries": ("  - {name: a, run: 'true', retries: 99}\n", "steps.0.retries"),
    "stdin without run": ("  - {name: a, wait-until: 'true', stdin: key}\n", "stdin belongs to run"),
    "put without source": ("  - {name: a, put: {to: .gpulease/x}}\n", "exactly one of content, from and secret"),
    "put of two sources": ("  - {name: a, put: {to: .gpulease/x, content: a, secret: b}}\n", "exactly one of"),
    "secret for all to run": ("  - {name: a, put: {to: .gpulease/x, secret: b, mode: '0700'}}\n", "0600 only"),
    "secret for all to read": ("  - {name: a, put: {to: .gpulease/x, secret: b, mode: '0644'}}\n", "steps.0.put.mode"),
    "put elsewhere": ("  - {name: a, put: {to: .ssh/authorized_keys, content: x}}\n", "steps.0.put.to"),
    "put at the top": ("  - {name: a, put: {to: /etc/passwd, content: x}}\n", "steps.0.put.to"),
    "put that climbs": ("  - {name: a, put: {to: .gpulease/../.bashrc, content: x}}\n", "steps.0.put.to"),
    "put with an unknown value": ("  - {name: a, put: {to: .gpulease/$run/x, content: x}}\n", "uses $run, which is not among values"),
    "unknown fact": ("  - {name: a, assert-fact: {fact: colour, equals: 1}}\n", "fact 'colour' is not one of"),
    "nothing asserted": ("  - {name: a, assert-fact: {fact: gpus}}\n", "needs equals, at-least or count"),
    "no steps": ("  []\n", "steps"),
    "a step that is a word": ("  - install it\n", "test.yaml:5: steps.0"),
    "a name of two lines": ('  - {name: "a\\nb", run: "true"}\n', "steps.0.name"),
    "an alias": ("  - &x {name: a, run: 'true'}\n  - *x\n", "anchor"),
    "a key twice": ("  - {name: a, name: b, run: 'true'}\n", "written again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_playbook_that_breaks_a_rule_is_refused_with_its_line(name: str) -> None:
    steps, said = WRONG[name]
    with pytest.raises(RefusedError) as caught:
        book(steps)
    assert said in caught.value.what and caught.value.what.startswith("test.yaml:")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("  x: {about: a}\n", "exactly one of type and pattern"),
        ("  x: {about: a, type: word, pattern: a}\n", "exactly one of type and pattern"),
        ("  x: {about: a, type: colour}\n", "type 'colour' is not one of"),
        ("  x: {about: a, pattern: '('}\n", "does not compile"),
        ("  x: {about: a, type: int, default: many}\n", "does not fit its own rule"),
        ("  X: {about: a, type: int}\n", "values.X"),
    ],
)
def test_a_value_needs_a_rule_that_can_be_held_against_it(rule: str, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        book(STEP, rule)
    assert said in caught.value.what


@pytest.mark.parametrize("other", ["playbook: 2\nname: t\nabout: a\nsteps: [{name: a, run: b}]\n", "name: t\n", "[]\n", "hello\n", ""])
def test_another_format_is_refused(other: str) -> None:
    with pytest.raises(RefusedError):
        load(other, "x.yaml")


def test_values_are_held_against_their_rules_before_anything_runs(local_host: LocalHost) -> None:
    one = book(STEP, "  lease: {about: which run, type: lease}\n  n: {about: how many, type: int, default: '4'}\n")
    assert settle(one, {"lease": "r-20261121t140210z-0a1b2c3d"}) == {"lease": "r-20261121t140210z-0a1b2c3d", "n": "4"}
    for values, said in (({}, "needs the value 'lease'"), ({"lease": "x"}, "lease is"), ({"lease": "r-1", "m": "1"}, "has no value 'm'")):
        with pytest.raises(RefusedError, match=said):
            run(one, local_host, values)
    assert local_host.scripts == []


HOSTILE = [
    "$(touch owned)",
    "`touch owned`",
    "; touch owned",
    "'; touch owned; '",
    '"; touch owned; "',
    "a\nb",
    "\x1b[2J",
    "a\0b",
    "-rf",
    "a|b",
    "*",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("kind", list(TYPES))
def test_no_type_lets_a_hostile_value_through(kind: str, value: str) -> None:
    one = book(STEP, f"  x: {{about: a, type: {kind}}}\n")
    with pytest.raises(RefusedError) as caught:
        settle(one, {"x": value})
    assert "\x1b" not in caught.value.what and "\n" not in caught.value.what


@pytest.mark.parametrize("value", [value for value in HOSTILE if not re.search(r"[\x00-\x1f]", value)])
def test_even_a_value_that_its_pattern_lets_through_is_only_text_to_the_shell(local_host: LocalHost, value: str) -> None:
    one = book("  - {name: a, run: 'printf %s \"$x\"'}\n", "  x: {about: anything, pattern: '.*'}\n")
    assert run(one, local_host, {"x": value})[0].tail == value.strip()
    assert not list(local_host.folder.rglob("owned"))


def test_steps_run_in_order_and_say_what_they_printed(local_host: LocalHost) -> None:
    said: list[str] = []
    one = book("  - {name: one, run: echo 1 >> log; echo first}\n  - {name: two, run: echo 2 >> log; echo second >&2}\n")
    results = run(one, local_host, say=said.append)
    assert [(result.name, result.exit, result.tail) for result in results] == [("one", 0, "first"), ("two", 0, "second")]
    assert (local_host.home / "log").read_text() == "1\n2\n" and said == ["test: one", "test: two"]


def test_a_step_that_fails_is_named_with_its_line_and_the_last_lines_cleaned(local_host: LocalHost) -> None:
    one = book(
        "  - {name: good, run: 'true'}\n  - name: bad\n    run: |\n      seq 1 50\n      printf '\\033[2Jwhy\\r\\n'\n      exit 7\n"
        "  - {name: never, run: touch never}\n"
    )
    with pytest.raises(RunError) as caught:
        run(one, local_host)
    assert caught.value.what == "test.yaml:6: step 'bad' ended with 7"
    assert caught.value.why.splitlines()[-1] == "why" and len(caught.value.why.splitlines()) == 12
    assert not (local_host.home / "never").exists()


def test_a_step_is_tried_again_as_often_as_it_says(local_host: LocalHost) -> None:
    script = "'echo x >> tries; [ $(wc -l < tries) -ge 3 ]'"
    assert run(book(f"  - {{name: a, run: {script}, retries: 2, every: 1}}\n"), local_host)[0].exit == 0
    (local_host.home / "tries").unlink()
    with pytest.raises(RunError):
        run(book(f"  - {{name: a, run: {script}, retries: 1, every: 1}}\n"), local_host)


def test_waiting_sleeps_with_the_sleep_it_was_given_until_the_script_holds(local_host: LocalHost) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            (local_host.home / "ready").touch()

    one = book("  - {name: a, wait-until: test -e ready, timeout: 60, every: 5}\n")
    play(one, local_host, {}, sleep=sleep)
    assert slept == [5, 5, 5]


def test_waiting_ends_at_the_time_out_with_what_was_last_printed(local_host: LocalHost) -> None:
    with pytest.raises(RunError, match="did not come true within 1 s") as caught:
        run(book("  - {name: a, wait-until: 'echo not yet; false', timeout: 1, every: 1}\n"), local_host)
    assert caught.value.why == "not yet"


def test_an_interrupted_sleep_ends_the_wait(local_host: LocalHost) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(book("  - {name: a, wait-until: 'false'}\n"), local_host, {}, sleep=interrupted)


def test_a_step_that_takes_too_long_is_an_error_of_the_host(local_host: LocalHost) -> None:
    with pytest.raises(HostError):
        run(book("  - {name: a, run: sleep 5, timeout: 1}\n"), local_host)


def test_a_secret_is_written_for_its_owner_and_is_in_no_script(local_host: LocalHost) -> None:
    one = book(
        "  - {name: file, put: {secret: key, to: .gpulease/$lease/api.key}}\n  - {name: pipe, run: cat > piped, stdin: key}\n",
        "  lease: {about: a, type: lease}\n",
    )
    values = {"lease": "r-20261121t140210z-0a1b2c3d"}
    run(one, local_host, values, secrets={"key": Secret("canary-123")})
    file = local_host.home / ".gpulease" / values["lease"] / "api.key"
    assert file.read_bytes() == b"canary-123" and file.stat().st_mode & 0o777 == 0o600
    assert (local_host.home / "piped").read_bytes() == b"canary-123"
    assert not any("canary" in script for script in local_host.scripts)


def test_bytes_from_the_caller_and_text_from_the_file_are_put(local_host: LocalHost) -> None:
    one = book(
        "  - {name: a, put: {from: client, to: .gpulease/c.py, mode: '0700'}}\n  - {name: b, put: {content: 'x', to: .gpulease/d}}\n"
    )
    run(one, local_host, files={"client": b"\0\xff"})
    assert (local_host.home / ".gpulease/c.py").read_bytes() == b"\0\xff" and (
        local_host.home / ".gpulease/c.py"
    ).stat().st_mode & 0o777 == 0o700
    assert (local_host.home / ".gpulease/d").read_text() == "x"


def test_a_path_made_of_values_cannot_leave_the_folder(local_host: LocalHost) -> None:
    one = book("  - {name: a, put: {content: x, to: .gpulease/$x}}\n", "  x: {about: a, pattern: '.*'}\n")
    for value in ("../owned", "/etc/owned", "a/../../owned", "", "a b"):
        with pytest.raises(RefusedError, match="leads out"):
            run(one, local_host, {"x": value})
    assert not list(local_host.folder.rglob("owned"))


def test_what_is_not_given_is_missed_before_the_first_step(local_host: LocalHost) -> None:
    one = book(
        "  - {name: a, run: touch started}\n  - {name: b, put: {secret: key, to: .gpulease/k}}\n"
        "  - {name: c, put: {from: f, to: .gpulease/f}}\n"
    )
    with pytest.raises(RefusedError, match="needs the secret 'key'"):
        run(one, local_host, files={"f": b""})
    with pytest.raises(RefusedError, match="needs the file 'f'"):
        run(one, local_host, secrets={"key": Secret("")})
    with pytest.raises(RefusedError, match="both as a secret and as a file"):
        run(one, local_host, secrets={"key": Secret(""), "f": Secret("")}, files={"f": b""})
    assert not (local_host.home / "started").exists()


def test_an_asserted_fact_is_read_off_the_machine(local_host: LocalHost) -> None:
    local_host.tool("ss", "echo 'LISTEN 0 5 127.0.0.1:22 0.0.0.0:*'")
    assert run(book("  - {name: a, assert-fact: {fact: listeners, count: 1}}\n"), local_host)[0].exit == 0
    with pytest.raises(RunError, match="'a' does not hold") as caught:
        run(book("  - {name: a, assert-fact: {fact: listeners, key: 0.port, equals: 23}}\n"), local_host)
    assert caught.value.why == "listeners.0.port is 22; needs 23"


@pytest.mark.parametrize(
    ("wanted", "value", "said"),
    [
        ({"fact": "nofile", "at-least": 1024}, 1024, ""),
        ({"fact": "nofile", "at-least": 1024}, 1023, "nofile is 1023; needs at least 1024"),
        ({"fact": "nofile", "at-least": 1024}, None, "nofile is None; needs at least 1024"),
        ({"fact": "python", "at-least": "3.8"}, "3.12.3", ""),
        ({"fact": "python", "at-least": "3.8"}, "3.7.9", "python is 3.7.9; needs at least 3.8"),
        ({"fact": "gpus", "key": "0.driver", "at-least": "570"}, [{"driver": "99.1"}], "gpus.0.driver is 99.1; needs at least 570"),
        ({"fact": "gpus", "key": "1.driver", "equals": "x"}, [{"driver": "99.1"}], "the machine's answer has no '1'"),
        ({"fact": "gpus", "count": 0}, [1], "gpus: 1; needs 0"),
        ({"fact": "gpus", "count": 0}, {}, "not a list"),
        ({"fact": "sudo", "equals": True}, True, ""),
        ({"fact": "sudo", "equals": True}, 1, "sudo is 1; needs True"),
        ({"fact": "disk", "key": "home.free_gib", "at-least": 10}, {"home": {"free_gib": 9}}, "disk.home.free_gib is 9; needs at least 10"),
    ],
)
def test_a_comparison_says_what_it_saw_and_what_it_needs(wanted: dict[str, Any], value: Any, said: str) -> None:
    assert wanted["fact"] in FACTS
    found = expect(Expect.model_validate(wanted), value)
    assert (said in found) if said else found == ""


UNDOABLE = (
    "  - {name: one, run: 'true', undo: echo one >> log}\n  - {name: two, run: 'true'}\n"
    "  - {name: three, run: 'test ! -e fail', undo: echo three >> log}\n  - {name: four, run: 'true', undo: echo four >> log}\n"
)


def log(host: LocalHost) -> list[str]:
    return (host.home / "log").read_text().split()


def test_leaving_the_block_undoes_in_reverse_order(local_host: LocalHost) -> None:
    with playing(book(UNDOABLE), local_host, {}, sleep=quick) as results:
        assert len(results) == 4 and not (local_host.home / "log").exists()
    assert log(local_host) == ["four", "three", "one"]


def test_what_was_begun_is_undone_when_a_step_fails(local_host: LocalHost) -> None:
    (local_host.home / "fail").touch()
    with pytest.raises(RunError, match="'three' ended with 1"), playing(book(UNDOABLE), local_host, {}, sleep=quick):
        pytest.fail("it did not begin")
    assert log(local_host) == ["three", "one"]


def test_undoing_that_fails_hides_neither_itself_nor_the_rest(local_host: LocalHost) -> None:
    one = book(
        "  - {name: a, run: 'true', undo: echo a >> log}\n  - {name: b, run: 'true', undo: echo no; exit 3}\n"
        "  - {name: c, run: 'true', undo: exit 4}\n"
    )
    with pytest.raises(RunError) as caught:
        undo(one, local_host, {})
    assert "undo of 'c' ended with 4" in caught.value.what and "undo of 'b' ended with 3: no" in caught.value.what
    assert log(local_host) == ["a"]


def test_undoing_that_fails_does_not_replace_the_error_under_way(local_host: LocalHost) -> None:
    one = book("  - {name: a, run: 'true', undo: exit 3}\n")
    with pytest.raises(ZeroDivisionError) as caught, playing(one, local_host, {}, sleep=quick):
        _ = 1 // 0
    assert caught.value.__notes__ == ["test.yaml:5: undo of 'a' ended with 3: "]


def test_a_player_plays_by_name(local_host: LocalHost) -> None:
    with pytest.raises(RefusedError, match="there is no playbook"):
        Player(local_host, sleep=quick)("nothing", {})
    said: list[str] = []
    local_host.tool("nvidia-smi", "echo 'No devices were found'")
    with pytest.raises(HostError, match="nvidia-smi failed"), Player(local_host, sleep=quick, say=said.append)("verify-nvidia", {}):
        pytest.fail("there is no GPU")
    assert said == ["verify-nvidia: the driver answers and is not ancient"]


def smi(host: LocalHost, processes: str = "") -> None:
    host.tool(
        "nvidia-smi",
        f"""case "$*" in
*query-gpu*) echo "NVIDIA L4, GPU-1a2b, 595.91.07, 23034, 8.9, Enabled" ;;
*query-compute-apps*) printf '{processes}' ;;
-L) echo "GPU 0: NVIDIA L4 (UUID: GPU-1a2b)" ;;
esac""",
    )


def test_a_good_machine_passes_verification_and_a_busy_one_does_not(local_host: LocalHost) -> None:
    smi(local_host)
    with Player(local_host, sleep=quick)("verify-nvidia", {}) as results:
        assert len(results) == 6
    smi(local_host, processes="42, python3, 512\\n")
    with pytest.raises(RunError, match="nothing else is on the GPUs") as caught, Player(local_host, sleep=quick)("verify-nvidia", {}):
        pytest.fail("the GPU is busy")
    assert caught.value.why == "gpu_processes: 1; needs 0"


def test_the_schema_names_every_verb_for_editors() -> None:
    step = schema()["$defs"]["Step"]["properties"]
    assert {"name", "run", "put", "wait-until", "assert-fact", "timeout", "retries", "every", "undo", "stdin"} == set(step)
