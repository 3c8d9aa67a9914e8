"""A server's whole life on a machine, with real processes: installed or found, started, seen, stopped, and what it may not leak."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import HostError, RunError, RuntimeFailed
from provisioner.remote import facts
from provisioner.remote.play import Player, play
from provisioner.remote.playbook import resolve
from provisioner.runtimes import ServeSpec, get
from provisioner.runtimes.server import Server, alive, env_file, log, serve, start_script
from provisioner.secret import Secret
from tests.playbooks.localhost import LocalHost

LEASE = "r-20261121t140210z-0a1b2c3d"
KEY = "k-secret-1234567890-canary"
TOKEN = "hf_canarycanarycanary"
FAKE = Path(__file__).parent / "fake_server.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quick(seconds: float) -> None:
    time.sleep(min(seconds, 0.1))


@pytest.fixture
def machine(local_host: LocalHost) -> Iterator[LocalHost]:
    serve = f'[ "$1" = serve ] && exec {sys.executable} -I -S {FAKE} "$@"\n'
    local_host.tool("vllm", serve + "echo 'WARNING 11-21 [importing.py:53] something'; echo 0.33.0+cpu")
    local_host.tool("sglang", serve + "echo 'sglang version: 0.5.23'; echo 'git revision: 7cee6c7'")
    yield local_host
    for pid in processes(local_host):
        os.kill(pid, signal.SIGKILL)


def processes(host: LocalHost) -> list[int]:
    """Every live process that runs below the machine's folder, and its children's command lines with it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, cwd = (entry / "cmdline").read_bytes(), os.readlink(entry / "cwd")
        except OSError:
            continue
        if words and (str(host.folder).encode() in words or cwd.startswith(str(host.folder))):
            found.append(int(entry.name))
    return found


def environment(pid: int) -> list[bytes]:
    """Of a process that may have ended meanwhile."""
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    return []


def served(
    host: LocalHost,
    name: str = "vllm",
    *,
    say: Callable[[str], None] = lambda line: None,
    timeout_s: float = 60,
    answer_s: float = 60,
    **changes: Any,
) -> AbstractContextManager[Server]:
    version = "0.33.0" if name == "vllm" else "0.5.23"
    given = {
        "model": "Qwen/Qwen3-0.6B",
        "revision": "c1899de289a04d12100db370d81485cdf75e47ca",
        "name": "qwen",
        "version": version,
        "port": free_port(),
    }
    spec = ServeSpec(**{**given, "api_key": Secret(KEY), "hf_token": Secret(TOKEN), **changes})
    return serve(
        host,
        get(name),
        spec,
        lease=LEASE,
        play=Player(host, sleep=quick),
        exposed=lambda: facts.exposed(facts.read(host, "listeners").value),
        sleep=quick,
        say=say,
        timeout_s=timeout_s,
        every_s=0.1,
        answer_s=answer_s,
    )


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_server_is_started_asked_and_stopped(machine: LocalHost, name: str) -> None:
    with served(machine, name) as server:
        assert server.key_required and server.ready_ms > 0 and server.exposed == ()
        assert alive(machine, server)
        if name == "vllm":
            assert server.figures["kv_cache_tokens"] == 22800
        assert (machine.home / server.key_file).read_text() == KEY
    assert processes(machine) == []
    assert not alive(machine, server)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_no_secret_is_in_any_argument_list_or_in_the_log(machine: LocalHost, name: str) -> None:
    with served(machine, name) as server:
        running = subprocess.run(["ps", "-ef", "ww"], capture_output=True, text=True, check=True).stdout
        lines = b"\n".join((Path("/proc") / str(pid) / "cmdline").read_bytes() for pid in processes(machine))
        text = (machine.home / server.folder / "server.log").read_text()
        assert "--served-model-name" in running and b"--served-model-name" in lines
        for secret in (KEY, TOKEN):
            assert secret not in running and secret.encode() not in lines and secret not in text
            assert not any(secret in script for script in machine.scripts)
        assert "[secret]" in text, "the fake prints its key: nothing was taken out of the log"


def test_what_holds_a_secret_is_for_its_owner_only_and_goes_when_the_server_goes(machine: LocalHost) -> None:
    folder = machine.home / ".gpulease" / LEASE
    with served(machine):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir() if file.is_file()} == {
            **dict.fromkeys(["server.env", "server.yaml", "server.sed", "api.key", "server.log", "server.pid", "executable"], "0o600"),
            "start.sh": "0o700",
        }
    left = {file.name for file in folder.iterdir()}
    assert left <= {"server.log", "executable", "server.exit"}
    assert not any(secret in (folder / name).read_text() for name in left for secret in (KEY, TOKEN))


def test_the_profiles_variables_arrive_exactly_and_nothing_is_expanded(machine: LocalHost) -> None:
    odd = 'it\'s $(touch owned) `id` "x" \\ ${HOME} # ; |'
    spec_env = env_file({"A": odd})
    done = subprocess.run(["sh", "-c", "set -a; . /dev/stdin; env"], input=spec_env.reveal_bytes(), capture_output=True, check=True)
    assert f"A={odd}".encode() in done.stdout.splitlines()


def test_every_argument_arrives_as_it_was(tmp_path: Path) -> None:
    odd = ["it's", "$(touch owned)", "`id`", "a b", "*", "--x=${HOME}", "\\", ""]
    (tmp_path / "show").write_text(f"#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]))\n")
    (tmp_path / "show").chmod(0o755)
    (tmp_path / "start.sh").write_bytes(start_script(odd))
    (tmp_path / "executable").write_text(f"{tmp_path}/show\n")
    (tmp_path / "server.env").write_text("")
    (tmp_path / "server.sed").write_text("")
    subprocess.run(["sh", tmp_path / "start.sh"], check=True)
    import json

    assert json.loads((tmp_path / "server.log").read_text()) == odd
    assert (tmp_path / "server.exit").read_text() == "0\n"


def test_a_server_that_dies_is_noticed_at_once_with_the_reason(machine: LocalHost) -> None:
    words = f"ValueError: No available memory for the cache blocks. \x1b[2Jkey {KEY}"
    begun = time.monotonic()
    with (
        pytest.raises(RuntimeFailed) as caught,
        served(machine, timeout_s=600, env={"FAKE": "die", "LAST_WORDS": words.replace("\x1b", "<ESC>")}),
    ):
        pytest.fail("it never answered")
    assert time.monotonic() - begun < 30
    assert caught.value.what.startswith("vllm ended with 1 before it was ready: the weights and the warm-up leave no GPU memory")
    assert "No available memory" in caught.value.why and "max-num-seqs" in caught.value.next
    assert KEY not in caught.value.why and "\x1b" not in caught.value.why
    assert processes(machine) == []


def test_a_server_that_dies_without_a_known_reason_shows_the_end_of_its_log(machine: LocalHost) -> None:
    with pytest.raises(RuntimeFailed) as caught, served(machine, env={"FAKE": "die", "LAST_WORDS": "something odd happened"}):
        pytest.fail("it never answered")
    assert caught.value.what == "vllm ended with 1 before it was ready" and "something odd happened" in caught.value.why


def test_a_server_that_is_never_ready_ends_at_the_time_out_and_is_stopped(machine: LocalHost) -> None:
    with pytest.raises(RuntimeFailed, match=r"not ready after 0\.4 s"), served(machine, timeout_s=0.4, env={"FAKE": "never"}):
        pytest.fail("it never answered")
    assert processes(machine) == []


@pytest.mark.parametrize(
    ("fake", "what", "why"),
    [
        ("wrong-model", "serves something/else; the profile names qwen", ""),
        ("chat-400", "up and does not do its work: a completion ended with 400", "no chat template"),
        ("no-chat", "the completion is not one", "what"),
        ("endless", "a completion did not end within 0.5 s", ""),
    ],
)
def test_a_server_that_answers_wrongly_is_not_waited_for(machine: LocalHost, fake: str, what: str, why: str) -> None:
    with pytest.raises(RuntimeFailed) as caught, served(machine, answer_s=0.5 if fake == "endless" else 60, env={"FAKE": fake}):
        pytest.fail("it was not ready")
    assert what in caught.value.what and why in caught.value.why
    assert KEY not in caught.value.what + caught.value.why and "\x1b" not in caught.value.why


def test_a_server_that_needs_no_key_is_reported_as_such(machine: LocalHost) -> None:
    with served(machine, env={"FAKE": "open"}) as server:
        assert server.key_required is False


def test_an_error_in_the_block_stops_the_server_and_stays_the_error(machine: LocalHost) -> None:
    with pytest.raises(ZeroDivisionError), served(machine):
        _ = 1 // 0
    assert processes(machine) == []


def stop(host: LocalHost, grace: str) -> None:
    from provisioner.remote.play import undo

    undo(resolve("serve"), host, {"lease": LEASE, "grace": grace})


def start(host: LocalHost, env: dict[str, str]) -> None:
    folder = host.home / ".gpulease" / LEASE
    folder.mkdir(parents=True)
    (folder / "executable").write_text(f"{host.bin}/vllm\n")
    given = {"server_env": env_file(env), "server_config": Secret(""), "server_redact": Secret(""), "api_key": Secret("x")}
    words = ["serve", "m", "--host=127.0.0.1", f"--port={free_port()}", "--served-model-name", "qwen"]
    play(resolve("serve"), host, {"lease": LEASE}, sleep=quick, secrets=given, files={"server_start": start_script(words)})


def test_a_stubborn_group_is_killed_with_its_children(machine: LocalHost) -> None:
    start(machine, {"FAKE": "stubborn"})
    for _ in range(100):
        if len(processes(machine)) >= 4:  # shell, sed, server, its child
            break
        time.sleep(0.05)
    assert len(processes(machine)) >= 4
    stop(machine, grace="3")
    assert processes(machine) == []


def test_stopping_twice_and_stopping_nothing_are_both_fine(machine: LocalHost) -> None:
    stop(machine, grace="3")
    start(machine, {})
    stop(machine, grace="30")
    stop(machine, grace="3")
    assert processes(machine) == []


def test_a_process_id_that_is_none_is_an_error_and_nothing_is_killed(machine: LocalHost) -> None:
    folder = machine.home / ".gpulease" / LEASE
    folder.mkdir(parents=True)
    (folder / "server.pid").write_text("-1; reboot\n")
    with pytest.raises(RunError, match="holds no process id"):
        stop(machine, grace="3")


def listening(host: LocalHost, *rows: str) -> None:
    """What `ss` shows: the first look, before the start, is empty but for sshd; later ones show the rows."""
    lines = "\\n".join(("LISTEN 0 128 0.0.0.0:22 0.0.0.0:*", *rows))
    host.tool("ss", f'if [ -e "{host.folder}/seen" ]; then printf \'{lines}\\n\'; else touch "{host.folder}/seen"; fi')


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_an_api_on_all_addresses_is_an_error(machine: LocalHost, name: str) -> None:
    port = free_port()
    listening(machine, f"LISTEN 0 5 0.0.0.0:{port} 0.0.0.0:*")
    with pytest.raises(RunError, match=rf"0\.0\.0\.0:{port} can be reached from other machines"), served(machine, name, port=port):
        pytest.fail("it is exposed")
    assert processes(machine) == []


@pytest.mark.parametrize(
    ("name", "row", "ok"),
    [("vllm", "*:40123", False), ("sglang", "*:40123", True), ("sglang", "*:80", False), ("vllm", "127.0.0.1:9", True)],
)
def test_another_open_port_is_an_error_unless_it_is_torchs_store(machine: LocalHost, name: str, row: str, ok: bool) -> None:
    listening(machine, f"LISTEN 0 5 {row} *:*")
    said: list[str] = []
    if not ok:
        with pytest.raises(RunError, match="can be reached"), served(machine, name):
            pytest.fail("it is exposed")
        return
    with served(machine, name, say=said.append) as server:
        assert server.exposed == ((row,) if row.startswith("*") else ())
    assert any("torch's store" in line for line in said) is row.startswith("*")


def test_what_was_open_before_us_is_not_the_servers_doing(machine: LocalHost) -> None:
    machine.tool("ss", "printf 'LISTEN 0 5 0.0.0.0:8888 0.0.0.0:*\\n'")
    with served(machine) as server:
        assert server.exposed == ()


def test_an_executable_of_another_version_is_refused_before_it_is_started(machine: LocalHost) -> None:
    with pytest.raises(RunError, match="look for vllm") as caught, served(machine, version="0.32.0", command=f"{machine.bin}/vllm"):
        pytest.fail("wrong version")
    assert "says that it is 0.33.0+cpu; the profile wants 0.32.0" in caught.value.why


def test_an_executable_that_is_not_there_is_named(machine: LocalHost) -> None:
    with pytest.raises(RunError) as caught, served(machine, command="/opt/none/bin/vllm"):
        pytest.fail("not there")
    assert "/opt/none/bin/vllm is not an executable file" in caught.value.why


def test_a_missing_server_is_installed_into_a_folder_of_its_own(machine: LocalHost) -> None:
    (machine.bin / "vllm").rename(machine.folder / "fake")
    machine.tool(
        "uv",
        f"""echo "$*" >> {machine.folder}/uv.log
case "$1" in
venv) mkdir -p "$3/bin" ;;
pip) venv="${{5%/bin/python}}"; cp {machine.folder}/fake "$venv/bin/vllm" ;;
esac""",
    )
    with served(machine) as server:
        assert server.version == "0.33.0"
    venv = machine.home / ".gpulease" / "venv-vllm-0.33.0"
    assert (machine.folder / "uv.log").read_text().splitlines() == [
        f"venv --quiet {venv}",
        f"pip install --quiet --python {venv}/bin/python vllm==0.33.0",
    ]
    with served(machine):
        pass
    assert len((machine.folder / "uv.log").read_text().splitlines()) == 2, "the second time it is found"


def test_an_installation_that_fails_leaves_nothing_to_be_found(machine: LocalHost) -> None:
    (machine.bin / "vllm").unlink()
    machine.tool("uv", 'case "$1" in venv) mkdir -p "$3/bin" ;; pip) echo "no such release"; exit 2 ;; esac')
    with pytest.raises(RunError, match="install vllm") as caught, served(machine):
        pytest.fail("not installed")
    assert "no such release" in caught.value.why
    assert not (machine.home / ".gpulease" / "venv-vllm-0.33.0").exists()


def test_the_fast_disk_is_used_for_the_models_where_there_is_one(machine: LocalHost) -> None:
    fast = machine.root / "opt/dlami/nvme"
    fast.mkdir(parents=True)
    wanted = {
        f"{name}={fast}/gpulease/{folder}".encode()
        for name, folder in (("HF_HOME", "huggingface"), ("VLLM_CACHE_ROOT", "vllm"), ("TRITON_CACHE_DIR", "triton"))
    }
    with served(machine) as server:
        pid = int((machine.home / server.folder / "server.pid").read_text())
        end = time.monotonic() + 20
        while True:  # on a busy machine a process may be seen in the moment of its exec, when it has no environment
            children = [child for child in processes(machine) if child != pid]
            environments = [set(environment(child)) for child in children]
            if any(wanted <= env for env in environments) or time.monotonic() > end:
                break
            time.sleep(0.05)
    assert any(wanted <= env for env in environments), environments
    assert any(entry.startswith(b"TMPDIR=") for env in environments for entry in env)


def test_a_fast_disk_with_less_room_than_the_home_is_left_alone(machine: LocalHost) -> None:
    fast = machine.root / "opt/dlami/nvme"
    fast.mkdir(parents=True)
    machine.tool("df", f'case "$2" in {fast}) free=1000 ;; *) free=2000 ;; esac; echo Filesystem; echo "/dev/x 9000 1 $free 1% /"')
    with served(machine) as server:
        assert not (machine.home / server.folder / "cache.path").exists()


@contextmanager
def systemd(host: LocalHost) -> Iterator[Path]:
    """systemd-run and systemctl that do the part we rely on: a session of its own, and a stop by unit name."""
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.tool("sudo", '[ "$1" = -n ] && shift; exec "$@"')
    record = host.folder / "systemd.log"
    host.tool(
        "systemd-run", f'echo "$*" >> {record}\nwhile [ "${{1#--}}" != "$1" ]; do shift; done\nsetsid "$@" </dev/null >/dev/null 2>&1 &'
    )
    host.tool("systemctl", f'echo "$*" >> {record}\nexit 5')
    yield record


def test_with_systemd_the_server_is_a_unit_of_the_login_user(machine: LocalHost) -> None:
    with systemd(machine) as record, served(machine):
        pass
    begun, stopped = record.read_text().splitlines()
    assert f"--unit=gpulease-{LEASE}-server" in begun and f"--uid={os.getuid()}" in begun and "--property=KillMode=control-group" in begun
    assert KEY not in begun
    assert stopped == f"stop gpulease-{LEASE}-server.service"
    assert processes(machine) == []


def test_progress_is_told_in_our_words(machine: LocalHost) -> None:
    said: list[str] = []
    with pytest.raises(RuntimeFailed), served(machine, say=said.append, timeout_s=0.6, env={"FAKE": "never"}):
        pytest.fail("it never answered")
    assert "vllm: the KV cache is laid out" in said


def test_a_machine_without_python_is_said_to_be_one(machine: LocalHost) -> None:
    machine.tool("python3", "echo 'python3: cannot execute' >&2; exit 126")
    with pytest.raises(HostError, match="could not be looked at") as caught, served(machine):
        pytest.fail("no probe")
    assert "cannot execute" in caught.value.why
    assert processes(machine) == []


@pytest.mark.parametrize("first", ["", ', "first_ms": "5"', ', "first_ms": true', ', "first_ms": -1', ', "first_ms": 1e3'])
def test_a_machine_that_only_says_ready_is_not_believed(machine: LocalHost, first: str) -> None:
    machine.tool("python3", f"""echo '{{"alive": true, "state": "ready", "key_required": true{first}}}'""")
    with pytest.raises(HostError, match="could not be looked at"), served(machine):
        pytest.fail("it has not said how long its first answer took")
    assert processes(machine) == []


def test_only_the_end_of_a_long_log_is_fetched(machine: LocalHost) -> None:
    folder = machine.home / ".gpulease" / LEASE
    folder.mkdir(parents=True)
    (folder / "server.log").write_text("x" * 10000 + f"{KEY} end")
    spec = ServeSpec("a/b", "0" * 40, "n", "1.0", api_key=Secret(KEY))
    assert log(machine, f".gpulease/{LEASE}", spec, limit=100).endswith("[secret] end")
    assert len(log(machine, f".gpulease/{LEASE}", spec, limit=100)) <= 100
