"""How it starts and what it prints to: a quick start, and streams that are closed, full, narrow or know only ASCII."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import ASKED, GPULEASE, MADE, Cli

HEAVY = ("boto3", "botocore", "paramiko", "pydantic", "moto", "cryptography", "securesystemslib", "rich", "jinja2", "yaml", "rfc8785")


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_loads_nothing_heavy(words: list[str], cli: Cli) -> None:
    program = (
        f"import sys; sys.argv = ['gpulease', *{words!r}]\nfrom provisioner.cli import main\n"
        f"try: main()\nfinally: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-P", "-c", program], env=cli.env, capture_output=True, text=True)
    assert "HEAVY []" in said.stdout, said
    assert "gpulease" in said.stdout + said.stderr


def test_listing_needs_no_cloud(cli: Cli) -> None:
    program = "import sys; sys.argv = ['gpulease', 'ls']\nfrom provisioner.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], env=cli.env, capture_output=True, text=True).stdout.split()
    assert not {"boto3", "moto", "jinja2"} & set(loaded)


def run(cli: Cli, shell: str, **env: str) -> subprocess.CompletedProcess[str]:
    shell = shell.replace("GPULEASE", " ".join(GPULEASE))
    return subprocess.run(["bash", "-c", shell], env={**cli.env, **env}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("to", [">&-", ">/dev/full", "| head -n 0", "2>&-", "<&- >&- 2>&-"])
def test_an_answer_that_nobody_reads_does_not_change_the_code(to: str, cli: Cli) -> None:
    cli.lease(ASKED, MADE)
    for words, code in (("ls --all", 0), ("plan nope", 2), ("release none", 2), ("proof", 4)):
        done = run(cli, f"GPULEASE {words} {to}; echo code=${{PIPESTATUS[0]}}")
        assert f"code={code}" in done.stdout and "Traceback" not in done.stdout + done.stderr, (words, to, done)


def test_closed_streams_are_never_taken_for_files_of_ours(cli: Cli) -> None:
    """With 2 closed the journal would be opened as 2, and the answer to Ctrl-C be written into it."""
    program = (
        "import os, sys; from provisioner import terminal; terminal._stand()\n"
        f"fd = os.open({str(cli.home / 'journal')!r}, os.O_CREAT | os.O_WRONLY); from provisioner.scope import cry; cry('SIGINT')\n"
        "os._exit(fd)"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -P -c "$0" <&- >&- 2>&-', program], env=cli.env)
    assert done.returncode == 3 and (cli.home / "journal").read_bytes() == b""


def test_text_that_a_terminal_cannot_show_is_spelt_out(cli: Cli) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    said = cli.process("plan", "smoke", "--region", "us-east-1", env=plain)
    assert said.code == 0 and "1 \\xd7 NVIDIA L4" in said.out
    assert cli.process("plan", "smoke", "--json", env=plain).answer["schema"] == "gpulease/plan/1"


def test_a_narrow_and_dumb_terminal_is_enough(cli: Cli) -> None:
    said = cli.process("run", "--help", env={"COLUMNS": "40", "TERM": "dumb", "LC_ALL": "C"})
    assert said.code == 0 and "\x1b" not in said.out
    assert max(len(line) for line in said.out.splitlines() if "gpulease run" not in line) <= 60


def test_names_that_are_no_text_are_refused_like_any_other(cli: Cli) -> None:
    done = subprocess.run([*GPULEASE, "plan", b"\xff.yaml", "--json"], env=cli.env, capture_output=True)
    assert done.returncode == 2 and b"does not exist" in done.stdout and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "what"),
    [
        ({"XDG_STATE_HOME": "here"}, "not an absolute path"),
        ({"XDG_STATE_HOME": "/proc/nobody"}, "cannot be used"),
        ({"XDG_STATE_HOME": "/dev/null/x"}, "cannot be used"),
    ],
)
@pytest.mark.parametrize("command", [["ls"], ["proof"], ["run", "smoke", "--yes", "--rehearse"], ["release", "x"], ["doctor"]])
def test_a_state_folder_that_cannot_be_used_is_said_with_what_to_do(command: list[str], env: dict[str, str], what: str, cli: Cli) -> None:
    said = cli.process(*command, *([] if command == ["doctor"] else ["--json"]), env=env)
    assert said.code == 4, said
    assert what in said.out and "export XDG_STATE_HOME" in said.out and "Traceback" not in said.err


def test_without_a_home_the_users_own_is_found(cli: Cli) -> None:
    env = {k: v for k, v in cli.env.items() if k not in ("HOME",)}
    done = subprocess.run([*GPULEASE, "ls", "--json"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done


def test_nohup_is_respected(cli: Cli) -> None:
    program = (
        "import signal, os, sys\nfrom provisioner import terminal, scope\ns = scope.Scope()\n"
        "with terminal._listening():\n os.kill(os.getpid(), signal.SIGHUP)\n"
        " with scope.signals(s, print):\n  os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.exit(7 if s.reason is None else 1)"
    )
    done = subprocess.run(["nohup", sys.executable, "-P", "-c", program], env=cli.env, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 7, done
