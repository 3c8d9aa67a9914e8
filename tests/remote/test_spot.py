"""The spot notice: read as hostile text, and the script that waits for it, against curls that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioner.remote.parsers import FactUnreadable
from provisioner.remote.spot import NO_CURL, WATCH, Notice, notice, watch_values
from provisioner.remote.ssh import command_line

SAID = '{"action": "terminate", "time": "2026-11-25T08:22:00Z"}'


def test_a_notice_is_an_action_and_a_time() -> None:
    assert notice(SAID) == Notice("terminate", datetime(2026, 11, 25, 8, 22, tzinfo=UTC))
    assert notice(' {"action":"stop","time":"2026-11-25T08:22:00.25Z","more":1}\n').action == "stop"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("<html>404</html>", "not JSON"),
        ("[" * 399, "not JSON"),
        ("[" * 100_000, "characters"),
        ('["terminate"]', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"action": "rebalance", "time": "2026-11-25T08:22:00Z"}', "none of"),
        ('{"action": ["terminate"], "time": "2026-11-25T08:22:00Z"}', "none of"),
        ('{"action": "terminate"}', "not of the form"),
        ('{"action": "terminate", "time": 1764058920}', "not of the form"),
        ('{"action": "terminate", "time": "2026-11-25T08:22:00+01:00"}', "not of the form"),
        ('{"action": "terminate", "time": "tomorrow\\u001b[2J"}', "not of the form"),
        ('{"action": "terminate", "time": "2026-13-25T08:22:00Z"}', "no such time"),
        ('{"action": "terminate", "time": "２０26-11-25T08:22:00Z"}', "not of the form"),
    ],
)
def test_anything_else_is_no_notice_and_is_shown_harmlessly(text: str, why: str) -> None:
    with pytest.raises(FactUnreadable) as refused:
        notice(text)
    assert why in str(refused.value.why) and "\x1b" not in str(refused.value)


def watch(tmp_path: Path, curl: str | None, looks: int = 3) -> subprocess.CompletedProcess[str]:
    """The script as it goes over SSH, on a machine that has this curl and nothing else of that name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep", "head", "tr", "cat", "rm"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    if curl is not None:
        (folder / "curl").write_text(f"#!{folder}/sh\n{curl}\n")
        (folder / "curl").chmod(0o755)
    command = command_line(WATCH, watch_values("0.01", looks))
    env = {**os.environ, "PATH": str(folder), "HOME": str(tmp_path)}
    return subprocess.run([str(folder / "sh"), "-c", command], capture_output=True, text=True, env=env, timeout=20, cwd=tmp_path)


def test_without_curl_it_says_so_and_ends(tmp_path: Path) -> None:
    done = watch(tmp_path, None)
    assert done.returncode == NO_CURL and "no curl" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    "curl",
    [
        "exit 28",  # the service does not answer
        "exit 127",
        'case "$*" in *PUT*) echo T ;; *) printf "\\n404" ;; esac',
        'case "$*" in *PUT*) echo T ;; *) printf "oops\\n500" ;; esac',
        'case "$*" in *PUT*) echo T ;; *) printf "\\n401" ;; esac',
        'case "$*" in *PUT*) echo T ;; *) exit 52 ;; esac',
        'case "$*" in *PUT*) ;; *) printf "x\\n200" ;; esac',  # an empty token is none
    ],
)
def test_whatever_goes_wrong_it_is_silent_and_goes_on(tmp_path: Path, curl: str) -> None:
    done = watch(tmp_path, f"echo x >> looked\n{curl}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len((tmp_path / "looked").read_text().split()) >= 3


def test_a_refused_token_is_asked_for_anew_and_the_notice_is_one_line(tmp_path: Path) -> None:
    curl = (
        'case "$*" in *PUT*) echo x >> tokens; wc=$(cat tokens); [ "$wc" = x ] && echo OLD || echo NEW ;; '
        '*OLD*) printf "\\n401" ;; *NEW*) printf \'{"action":"terminate",\\n"time":"2026-11-25T08:22:00Z"}\\n200\' ;; esac'
    )
    done = watch(tmp_path, curl, looks=-1)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done
    assert notice(done.stdout) == notice(SAID)


def test_a_service_that_floods_is_cut(tmp_path: Path) -> None:
    done = watch(tmp_path, 'case "$*" in *PUT*) echo T ;; *) head -c 100000 /dev/zero | tr "\\0" x; printf "\\n200" ;; esac')
    assert done.returncode == 0 and len(done.stdout) <= 401
    with pytest.raises(FactUnreadable):
        notice(done.stdout)


def test_the_script_never_names_a_secret_and_is_a_fixed_text() -> None:
    assert json.loads(json.dumps(dict(watch_values()))) == {"interval": "5", "looks": "-1"}
    assert "role" not in WATCH and "credentials" not in WATCH
