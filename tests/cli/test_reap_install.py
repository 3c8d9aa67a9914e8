"""What `reap --install` prints can be used as it is, and holds no secret."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner import yamlsafe
from provisioner.errors import UsageError
from provisioner.reap_command import WAYS, _unit_word, install_text

SECRET = re.compile(r"AKIA|aws_secret|secrets\.|password|token:(?! write)", re.IGNORECASE)


def units(text: str) -> dict[str, str]:
    """file name -> its text"""
    parts = re.split(r"^# ~/\.config/systemd/user/(\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_units_are_units_and_the_timer_is_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    files = units(install_text("systemd", ["us-east-1", "eu-west-1"], "my profile"))
    assert list(files) == ["gpulease-reap.service", "gpulease-reap.timer"]
    service, timer = (configparser.RawConfigParser(strict=True) for _ in files)
    service.read_string(files["gpulease-reap.service"])
    timer.read_string(files["gpulease-reap.timer"])
    command = service["Service"]["ExecStart"]
    assert command.startswith("/") and 'reap --go --region us-east-1 --region eu-west-1 --aws-profile "my profile"' in command
    assert service["Service"]["Type"] == "oneshot" and timer["Timer"]["OnCalendar"] == "*:0/15" and timer["Timer"]["Persistent"] == "true"


def test_a_word_that_means_something_to_systemd_means_itself() -> None:
    assert _unit_word("50%") == "50%%" and _unit_word("a b") == '"a b"' and _unit_word("$HOME") == "$$HOME"


@pytest.mark.slow
def test_systemd_itself_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for name, text in units(install_text("systemd", [], None)).items():
        (tmp_path / name).write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--user", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, timeout=60
    )
    assert not [line for line in said.stderr.splitlines() if "gpulease-reap" in line], said.stderr


def test_the_line_for_cron_is_one_line_of_five_times_and_a_command_that_sh_can_read() -> None:
    *_, line = install_text("cron", ["us-east-1"], "100% mine").strip().splitlines()
    times, command = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert times == ["*/15", "*", "*", "*", "*"] and "reap --go --region us-east-1" in command
    assert "%" not in command.replace("\\%", ""), "in a crontab a bare % ends the command"
    assert subprocess.run(["sh", "-n", "-c", command.replace("\\%", "%")], timeout=60).returncode == 0


def test_the_workflow_is_yaml_with_a_schedule_and_a_role_and_no_key() -> None:
    text = install_text("github", ["eu-west-1"], None)
    read = yamlsafe.load(text, "gpulease-reap.yml").data
    assert read["jobs"]["reap"]["steps"][-1]["run"] == ".venv/bin/gpulease reap --go --region eu-west-1"
    assert read["permissions"] == {"id-token": "write", "contents": "read"} and read["on"]["schedule"] == [{"cron": "*/15 * * * *"}]
    assert read["jobs"]["reap"]["steps"][-2]["with"]["role-to-assume"] == "${{ vars.GPULEASE_REAPER_ROLE }}"


def test_the_workflow_installs_one_commit_of_the_source_before_it_has_the_role_and_no_name_of_an_index() -> None:
    job = yamlsafe.load(install_text("github", [], None), "gpulease-reap.yml").data["jobs"]["reap"]
    checkout, same, venv, locked, itself, role, _ = job["steps"]
    assert checkout["with"]["ref"] == "${{ env.GPULEASE_COMMIT }}" and "configure-aws-credentials" in role["uses"]
    assert same["run"] == 'test "$(git rev-parse HEAD)" = "$GPULEASE_COMMIT"', "a branch's name is no commit"
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for step in (locked, itself):
        assert step["run"].startswith(".venv/bin/python -m pip install ")
        assert step["run"].removeprefix(".venv/bin/python -m pip install ") in makefile, "as `make install` does it"
    assert "gpulease" not in " ".join(step["run"] for step in (venv, locked, itself))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_printed_holds_a_secret(way: str) -> None:
    assert not SECRET.search(install_text(way, [], None))


def test_what_cannot_be_printed_is_refused() -> None:
    with pytest.raises(UsageError, match="launchd"):
        install_text("launchd", [], None)
    with pytest.raises(UsageError, match="--aws-profile"):
        install_text("github", [], "p")
