"""The small systemd: what it reads and writes (pure), and what a machine's services and timers do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from provisioner.rehearsal.unit_text import (
    BadUnit,
    columns,
    parse_calendar,
    parse_command,
    parse_env_file,
    parse_environment,
    parse_span,
    parse_unit,
    show_instant,
    show_span,
)

from .conftest import Box, alive, until

Start = Callable[..., Box]


def write(box: Box, name: str, text: str) -> None:
    box.run(f'cat > "$GPULEASE_ROOT/etc/systemd/system/{name}"', text.encode())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("1min 30s", 90),
        ("1min30s", 90),
        ("500ms", 0.5),
        ("2h", 7200),
        ("1d", 86400),
        ("infinity", float("inf")),
        ("15 min", 900),
    ],
)
def test_a_time_span_is_read_as_systemd_reads_it(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "5 parsecs", "-3s"])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    with pytest.raises(BadUnit):
        parse_span(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0"), (61.5, "1min 1.5s"), (0.25, "250ms"), (90061.0, "1d 1h 1min 1s"), (3600.0, "1h")]
)
def test_a_time_span_is_written_as_systemd_writes_it(seconds: float, text: str) -> None:
    assert show_span(seconds) == text


def test_an_instant_goes_through_writing_and_reading_unchanged() -> None:
    assert parse_calendar("2026-11-21 14:02:10 UTC") == 1795269730
    assert parse_calendar(show_instant(1795269730)) == 1795269730
    for text in ("daily", "*-*-* 04:00:00", "2026-13-01 00:00:00 UTC", "2026-11-21 14:02:10 CET"):
        with pytest.raises(BadUnit):
            parse_calendar(text)


def test_a_unit_file_keeps_repeated_keys_and_an_empty_one_resets_them() -> None:
    unit = parse_unit("# c\n[Service]\nExecStart=/bin/a \\\n  b\nExecStart=\nExecStart=/bin/c\nEnvironment=A=1 'B=2 3'\n")
    assert unit.all("Service", "ExecStart") == ["/bin/c"]
    assert parse_environment(unit.all("Service", "Environment")) == {"A": "1", "B": "2 3"}
    assert parse_env_file("# x\nA='1 2'\nB=\"3\"\nC=4=5\nnothing\n") == {"A": "1 2", "B": "3", "C": "4=5"}
    with pytest.raises(BadUnit):
        parse_unit("[Service]\nnonsense\n")


def test_a_command_line_is_split_and_filled_as_systemd_does() -> None:
    env = {"X": "a b", "Y": "c"}
    assert parse_command('-/bin/x $X ${X} "q $$ ${Y}" 100%% %n', env, "u.service") == (
        ["/bin/x", "a", "b", "a b", "q $ c", "100%", "u.service"],
        True,
    )


def test_columns_line_up() -> None:
    assert columns([["A", "B"], ["long", "x"]]) == "A    B\nlong x\n"


def test_a_timer_runs_its_oneshot_again_and_again_until_it_is_disabled(box: Box) -> None:
    write(box, "check.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >> \"$GPULEASE_ROOT/run/ticks\"'\n")
    write(box, "check.timer", "[Timer]\nOnActiveSec=0\nOnUnitActiveSec=300ms\nAccuracySec=1s\n[Install]\nWantedBy=timers.target\n")
    box.out("sudo systemctl daemon-reload; sudo systemctl enable --now check.timer")
    until(lambda: (box.root / "run/ticks").exists() and len((box.root / "run/ticks").read_text().split()) >= 3)
    shown = box.out("systemctl show check.timer --property=SubState,ActiveState,Unit,Result -p LastTriggerUSec")
    assert shown.splitlines()[0] == "Unit=check.service"  # systemd's order, not the order asked for
    assert re.search(r"LastTriggerUSec=\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown)
    assert box.out("systemctl is-enabled check.timer") == "enabled"
    assert "check.timer" in box.out("systemctl list-timers --all --no-legend")
    box.out("systemctl disable --now check.timer")
    assert box.run("systemctl is-enabled check.timer")[:2] == (1, "disabled\n")
    assert box.run("systemctl is-active check.timer")[:2] == (3, "inactive\n")


def test_units_that_are_not_there_are_answered_as_systemctl_does(box: Box) -> None:
    assert box.run("systemctl is-active nothing.service")[:2] == (4, "inactive\n")
    assert box.run("systemctl start nothing")[::2] == (5, "Failed to start nothing.service: Unit nothing.service not found.\n")
    assert box.out("systemctl show nothing -p LoadState,ActiveState --value").split() == ["not-found", "inactive"]
    assert box.run("systemctl frobnicate")[::2] == (1, "Unknown command verb frobnicate.\n")
    assert box.run("systemctl --sideways")[0] == 1
    assert box.run("systemctl is-enabled nothing")[:2] == (4, "not-found\n")
    assert box.out("systemctl is-active ssh") == "active"
    assert box.out("systemctl is-system-running") == "running"


def test_a_service_gets_its_environment_its_folder_and_its_log(box: Box) -> None:
    box.run('mkdir -p "$GPULEASE_ROOT/srv/x"; cat > "$GPULEASE_ROOT/etc/x.env"', b"KEY=from file\n")
    text = "[Service]\nType=oneshot\nEnvironment=B=2\nEnvironmentFile=/etc/x.env\nEnvironmentFile=-/etc/none.env\nWorkingDirectory=/srv/x\n"
    write(box, "env.service", text + "StandardOutput=append:/var/log/x.log\nExecStart=/bin/sh -c 'echo $B; echo \"$KEY\"; pwd'\n")
    box.out("systemctl start env")
    assert (box.root / "var/log/x.log").read_text().split("\n") == ["2", "from file", f"{box.root}/srv/x", ""]


def test_a_service_that_fails_says_how(box: Box) -> None:
    write(box, "bad.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo why; exit 6'\n")
    code, _, err = box.run("systemctl start bad")
    assert (code, "Job for bad.service failed" in err) == (1, True)
    assert box.out("systemctl show bad -p ActiveState,Result,ExecMainStatus").split() == [
        "Result=exit-code",
        "ExecMainStatus=6",
        "ActiveState=failed",
    ]
    assert box.out("journalctl -u bad -n 1 --no-pager") == "why"
    box.out("systemctl reset-failed bad")
    assert box.run("systemctl is-failed bad")[1] == "inactive\n"


def test_stopping_a_service_ends_all_that_it_forked(box: Box) -> None:
    options = "--quiet --collect --unit=serve --uid=$(id -u) --property=KillMode=control-group --property=TimeoutStopSec=5 --setenv=A='b c'"
    script = 'setsid sleep 300 & echo $! > child; echo "$A $HOME" > said; exec sleep 300'
    box.out(f"sudo -n systemd-run {options} --property=WorkingDirectory=\"$PWD\" /bin/sh -c '{script}'")
    child = until(lambda: int((box.root / "home/ubuntu/child").read_text() or 0) if (box.root / "home/ubuntu/child").exists() else 0)
    main = int(box.out("systemctl show serve -p MainPID --value"))
    assert alive(main) and alive(child)
    until(
        lambda: (box.root / "home/ubuntu/said").exists() and (box.root / "home/ubuntu/said").read_text() == f"b c {box.root}/home/ubuntu\n"
    )
    assert "already loaded" in box.run("systemd-run --unit=serve true")[2]
    box.out("sudo systemctl stop serve")
    assert not alive(main) and not alive(child)
    assert box.run("sudo systemctl stop serve")[0] == 5  # collected: there is no such unit any more


def test_a_service_that_will_not_stop_is_killed_after_its_patience(box: Box) -> None:
    script = 'trap "" TERM; echo up > deaf; while :; do sleep 0.1; done'
    box.out(f"systemd-run -q --collect --unit=deaf -p TimeoutStopSec=300ms /bin/sh -c '{script}'")
    time.sleep(0.1)
    begun = time.monotonic()
    box.run("systemctl stop deaf")
    assert time.monotonic() - begun > 0.25  # its patience first, and then an end


def test_systemd_run_makes_a_timer_and_can_wait_for_a_command(box: Box) -> None:
    said = box.run('systemd-run --unit=soon --on-active=200ms touch "$GPULEASE_ROOT/run/soon"')
    assert said[0] == 0 and said[2].startswith("Running timer as unit: soon.timer\nWill run service as unit: soon.service\n")
    until(lambda: (box.root / "run/soon").exists())
    assert box.run("systemd-run --wait --collect /bin/sh -c 'exit 5'")[0] == 5
    assert box.run("systemd-run no-such-program")[::2] == (1, "Failed to find executable no-such-program: No such file or directory\n")
    assert box.run("systemd-run --pty true")[0] == 1


def test_a_service_that_dies_is_restarted_and_gives_up_at_the_limit(box: Box) -> None:
    write(box, "again.service", "[Service]\nRestart=on-failure\nRestartSec=10ms\nExecStart=/bin/false\n")
    box.run("systemctl start again")
    until(lambda: box.out("systemctl show again -p Result --value") == "start-limit-hit")
    assert box.out("systemctl show again -p NRestarts --value") == "4"


def test_runtime_max_ends_a_service_with_timeout(box: Box) -> None:
    box.out("systemd-run -q --unit=long -p RuntimeMaxSec=200ms -p TimeoutStopSec=1 sleep 300")
    until(lambda: box.out("systemctl show long -p Result --value") == "timeout")
    box.out("systemctl reset-failed long")
