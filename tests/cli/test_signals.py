"""Signals and terminals: answered within two seconds wherever nothing was asked for yet, and never able to change the code after that."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from provisioner.errors import Exit
from provisioner.remote.link import Target, Unreachable, _connected, open_link
from provisioner.render import Story
from provisioner.scope import Cancelled, Scope
from tests.cli.conftest import GPULEASE, Cli
from tests.life.conftest import Bench

SOON = 2.0


class Answer:
    """How long a program takes to end from here on, less what it and this test stood in the queue for a processor.

    A machine on which twenty others compute makes nobody late; a wait of our own for anything else still counts.
    """

    def __init__(self, process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
        self.process, self.queued = process, _queued(process.pid)
        self.began = time.monotonic()

    def took(self, within: float = 60.0) -> float:
        """Seconds. It is waited for here, and its exit code left to be asked for."""
        while not _ended(self.process):
            assert time.monotonic() - self.began < within, "it goes on"
            time.sleep(0.01)
        return time.monotonic() - self.began - (_queued(self.process.pid) - self.queued)


def _queued(pid: int) -> float:
    """Seconds that a process, which may have ended, and we were ready to go on and had no processor; 0 where nobody counts them."""
    try:
        return sum(int(Path(f"/proc/{one}/schedstat").read_text().split()[1]) for one in (pid, "self")) / 1e9
    except OSError:
        return 0.0


def _ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> bool:
    """Has it? It stays to be seen: what it leaves in /proc goes with the first who waits for it."""
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Terminal:
    """A terminal of 40 columns with a program on it."""

    def __init__(self, *words: str, env: dict[str, str], **more: object) -> None:
        self.near, far = pty.openpty()
        termios.tcsetwinsize(far, (24, 40))
        how: dict[str, object] = {"stdin": far, "stdout": far, "stderr": far, **more}
        self.process = subprocess.Popen(words, env=env, start_new_session=True, preexec_fn=lambda: _controls(far), **how)  # type: ignore[call-overload]
        os.close(far)
        self.seen = ""

    def until(self, text: str, within: float = 60.0) -> str:
        end = time.monotonic() + within
        while text not in self.seen and time.monotonic() < end:
            if select.select([self.near], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.near, 4096).decode("utf-8", "replace")
                except OSError:
                    break
        assert text in self.seen, self.seen
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.near, text.encode())

    def drain(self, within: float) -> bool:
        """Read what it says until it ends, and what it had said by then. Did it?"""
        end = time.monotonic() + within
        while time.monotonic() < end:
            ended = _ended(self.process)
            if not select.select([self.near], [], [], 0 if ended else 0.05)[0]:
                if ended:
                    break
                continue
            try:
                self.seen += os.read(self.near, 4096).decode("utf-8", "replace")
            except OSError:  # nobody has the other end any more
                if ended:
                    break
                time.sleep(0.02)
        return _ended(self.process)

    def end(self, within: float = 60.0) -> int:
        self.drain(within)
        self.process.kill()
        return self.process.wait()

    def answers(self, code: int) -> bool:
        """Does it end with that code, and soon?"""
        answer = Answer(self.process)
        return self.drain(20.0) and answer.took() < SOON and self.end() == code


def _controls(far: int) -> None:
    import fcntl

    fcntl.ioctl(far, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("cloud"))
    yield made
    made.close()


@contextmanager
def asked(cloud: Bench, *more: str, **how: object) -> Iterator[Terminal]:
    words = [*GPULEASE, "run", "smoke", "--rehearse", "--endpoint", cloud.cloud.endpoint, *more]
    terminal = Terminal(*words, env={**cloud.env, "TERM": "xterm"}, **how)
    try:
        terminal.until("Go? [y/N] ")
        yield terminal
    finally:
        terminal.end(5.0)
        os.close(terminal.near)


ANSWERS = [("n\n", 4, "not started"), ("\n", 4, "not started"), ("\x04", 4, "not started"), ("\x03", 130, "stopped: SIGINT")]


@pytest.mark.parametrize(("typed", "code", "said"), ANSWERS, ids=["n", "enter", "ctrl-d", "ctrl-c"])
def test_anything_but_yes_at_the_question_rents_nothing(typed: str, code: int, said: str, cloud: Bench) -> None:
    with asked(cloud) as terminal:
        terminal.type(typed)
        assert terminal.answers(code), terminal.seen
        assert said in terminal.seen and "nothing was rented" in terminal.seen
    assert not cloud.folders() and not cloud.left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_question_answers_every_signal(number: signal.Signals, code: int, cloud: Bench) -> None:
    with asked(cloud) as terminal:
        terminal.process.send_signal(number)
        assert terminal.answers(code), terminal.seen
    assert not cloud.folders()


def test_a_question_that_nobody_could_see_is_not_asked(cloud: Bench, tmp_path: Path) -> None:
    with (tmp_path / "story").open("w") as story:
        terminal = Terminal(*GPULEASE, "run", "smoke", "--rehearse", env=cloud.env, stderr=story)
        assert terminal.end() == 2
    assert "no terminal to show the question on" in (tmp_path / "story").read_text()


def silent() -> socket.socket:
    """A server that accepts and never says a word."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_cloud_is_asked_is_answered_at_once_and_in_json(number: signal.Signals, cli: Cli) -> None:
    with silent() as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = {**cli.env, "HTTPS_PROXY": proxy, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
        process = subprocess.Popen([*GPULEASE, "run", "smoke", "--yes", "--json"], env=env, stdout=-1, stderr=-1, text=True)
        server.settimeout(20)
        server.accept()
        process.send_signal(number)
        took = Answer(process).took()
        out, err = process.communicate(timeout=20)
    assert took < SOON and process.returncode == 128 + number, err
    assert f'"what": "stopped: {number.name}"' in out and '"nothing was rented, nothing was spent"' in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_look_for_forgotten_leases_ends_at_once_however_many_answers_are_still_to_come(number: signal.Signals, cli: Cli) -> None:
    with silent() as server:
        regions = ["--region", "us-east-1", "--region", "us-west-2"]
        words = [*GPULEASE, "reap", "--json", "--endpoint", f"http://127.0.0.1:{server.getsockname()[1]}", *regions]
        process = subprocess.Popen(words, env=cli.env, stdout=-1, stderr=-1, text=True)
        server.settimeout(20)
        open_questions = [server.accept() for _ in range(4)]
        process.send_signal(number)
        took = Answer(process).took()
        out, err = process.communicate(timeout=20)
        for connection, _ in open_questions:
            connection.close()
    assert took < SOON and process.returncode == 128 + number, err
    assert f'"what": "stopped: {number.name}"' in out


def test_a_signal_while_a_rehearsal_starts_leaves_no_rehearsal(cli: Cli, tmp_path: Path) -> None:
    """The process that was just started is known to nobody else, so it ends with us."""
    sleeper = tmp_path / "provisioner"
    waits = tmp_path / "waits"  # for its first line; before that we may not know it ourselves, and it ends by itself (test_process)
    program = (
        "import sys, subprocess\nfrom provisioner import terminal\nfrom provisioner.rehearsal import client\n"
        f"client.sys, first = type('', (), {{'executable': {str(sleeper)!r}}}), client._first_line\n"
        f"client._first_line = lambda *a: (open({str(waits)!r}, 'w').close(), first(*a))[1]\n"
        f"from pathlib import Path\nwith terminal.ending(True, terminal.NOTHING_YET): client.start(Path({str(tmp_path / 'c')!r}))"
    )
    sleeper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 60\n")
    sleeper.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-P", "-c", program], env=cli.env, stdout=-1, stderr=-1)
    end = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and waits.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert Answer(process).took() < SOON and process.wait() == 130
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_the_code_is_known_a_signal_ends_the_printing_and_keeps_the_code(number: signal.Signals, cli: Cli) -> None:
    """`gpulease run | less`, and Ctrl-C in less: 20 must not become 130."""
    program = "from provisioner import terminal\nwith terminal.ending(False): terminal.leave(20, 'x' * 10_000_000)"
    process = subprocess.Popen([sys.executable, "-P", "-c", program], env=cli.env, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.read(1) == b"x"
    process.send_signal(number)
    assert Answer(process).took() < SOON and process.wait() == 20


def test_dialling_a_machine_that_drops_what_it_is_sent_ends_with_the_scope() -> None:
    scope = Scope()
    timer = threading.Timer(0.3, scope.cancel, ["SIGINT"])
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        crowd = [socket.socket() for _ in range(8)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(where)
        began = time.monotonic()
        timer.start()
        with pytest.raises(Cancelled):
            _connected(where, 60.0, scope.sleep)
        assert time.monotonic() - began < 30
        with pytest.raises(TimeoutError):
            _connected(where, 0.2, time.sleep)
        for one in crowd:
            one.close()
    with pytest.raises(ConnectionRefusedError):
        _connected(where, 1.0, time.sleep)


def test_a_name_that_is_none_is_unreachable() -> None:
    from provisioner.errors import HostError

    target = Target("no-such-host.invalid", 22, "me", "/no/key", "ssh-ed25519 AAAA")
    with pytest.raises((HostError, Unreachable)):
        open_link(target, timeout=1.0)


def test_a_stopped_terminal_makes_a_gap_in_the_story_and_not_a_wait() -> None:
    """Ctrl-S, and then a signal: letting go must not wait until somebody presses Ctrl-Q."""
    near, far = pty.openpty()
    termios.tcflow(far, termios.TCOOFF)
    with open(far, "w") as out:
        story = Story(out)
        began = time.monotonic()
        for _ in range(3):
            story.tell("release", "asked instance i-1 to go")
        for done in range(100):
            story.progress("eval host", done, 100)
        assert time.monotonic() - began < SOON
        termios.tcflow(far, termios.TCOON)
        story.tell("release", "seen gone")
        read = b""
        while b"seen gone" not in read:  # the terminal hands over what it held back in pieces of its own
            read += os.read(near, 4096)
    os.close(near)


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False), (None, False)])
def test_the_bar_fits_its_terminal_and_is_replaced_by_the_next_line(term: str | None, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", term) if term else monkeypatch.delenv("TERM", raising=False)
    near, far = pty.openpty()
    with open(far, "w") as out:
        story = Story(out, spent=lambda: "$0.02")
        story.progress("eval host", 3, 32)
        story.progress("eval host", 0, 0)
        story.tell("eval", "\x1b[2Jdone")
        shown = ""
        while "done" not in shown:
            shown += os.read(near, 4096).decode()
    os.close(near)
    bar, _, rest = shown.rpartition("\r\x1b[K")
    assert ("[##" in bar and len(bar.strip("\r").removesuffix("\x1b[K")) < 40) if live else bar == ""
    assert "done" in rest and "\x1b" not in rest.strip("\r\n")


@pytest.mark.parametrize("live", [True, False])
def test_what_is_waited_for_is_shown_each_second_on_a_terminal_and_every_half_minute_elsewhere(
    live: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    near, far = pty.openpty()
    seconds = iter(range(1000))  # one for each look at the clock: when it began, when it is asked, when it has said something
    with open(far if live else tmp_path / "story", "w") as out:
        story = Story(out, spent=lambda: "$0.02", now=lambda: next(seconds))
        for waited in range(60):
            story.waited("connect", f"waiting for SSH on 203.0.113.1, {waited} s")
        story.tell("connect", "done")
    shown = ""
    while live and "done" not in shown:
        shown += os.read(near, 4096).decode()
    os.close(near)
    lines = shown.split("\r") if live else (tmp_path / "story").read_text().splitlines()
    told = [line for line in lines if "waiting for SSH on 203.0.113.1, " in line and "$0.02" in line]
    assert len(told) == (60 if live else 2) and ("\x1b[K" in told[0]) == live


def test_a_machine_that_boots_slowly_is_waited_for_aloud(bench: Bench) -> None:
    bench.cloud.faults([{"host": {"boot_delay_s": 3.0}}])
    near, far = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-P", "-m", "provisioner", *bench.run_words()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=far, env={**bench.env, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(far)
    shown = b""
    try:
        while not re.search(rb"connect   waiting for SSH on [0-9.]+, [12] s  \$0\.0", shown):
            shown += os.read(near, 4096)
    finally:
        run.send_signal(signal.SIGTERM)
        with suppress(OSError):  # the terminal ends with the program
            while run.poll() is None:
                if select.select([near], [], [], 0.1)[0]:
                    os.read(near, 4096)
        os.close(near)
        assert run.wait(60) == Exit.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("how", ["yes", "ctrl-c twice", "stop and kill", "terminal gone", "ctrl-s"])
def test_a_run_on_a_terminal_that_goes_through_everything(how: str, bench: Bench) -> None:
    with asked(bench, "--keep", "0" if how == "yes" else "5m") as terminal:
        terminal.type("y\n")
        if how == "yes":
            assert terminal.end() == 0 and "[####" in terminal.seen
        else:
            terminal.until("[##")
        if how == "ctrl-c twice":
            terminal.type("\x03")
            terminal.until("SIGINT: heard", SOON)
            terminal.type("\x03")
            assert terminal.end() == Exit.SIGINT and "SIGINT: still letting go" in terminal.seen
        elif how == "stop and kill":
            os.kill(terminal.process.pid, signal.SIGSTOP)
            os.kill(terminal.process.pid, signal.SIGTERM)
            os.kill(terminal.process.pid, signal.SIGCONT)
            assert terminal.end() == Exit.SIGTERM
        elif how == "terminal gone":
            os.close(terminal.near)
            terminal.near = os.open(os.devnull, os.O_RDONLY)
            assert terminal.process.wait(60) == Exit.SIGHUP
        elif how == "ctrl-s":
            terminal.type("\x13")
            os.kill(terminal.process.pid, signal.SIGTERM)
            assert bench.released(20), bench.left()
            terminal.type("\x11")
            assert terminal.end() == Exit.SIGTERM
    assert bench.released() and bench.verify() == 0
    assert bench.end(bench.start("ls", "--json")).answer["leases"] == []
