"""`ls`, `release`, `proof`, `report`, `logs`, `ssh` and `doctor` on leases in every state that a run can leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from provisioner import closing, ledger
from provisioner.clouds import cloud_at
from provisioner.errors import Exit
from provisioner.journal import Journal
from provisioner.ledger import LeaseFolder
from provisioner.model import Outcome
from provisioner.remote import keys
from provisioner.scope import SystemClock
from tests.cli.conftest import ASKED, GPULEASE, MADE, NOBODY, RELEASED, Cli
from tests.life.conftest import Bench

REAL = None
"""No endpoint: a lease at AWS."""


def states(cli: Cli) -> dict[str, str]:
    return {lease["lease"]: lease["state"] for lease in cli("ls", "--all", "--json").answer["leases"]}


def sealed(cli: Cli) -> LeaseFolder:
    """A lease that was refused before it asked for anything, with its proof."""
    folder = cli.lease(("stage", {"stage": "plan", "state": "begin"}))
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append(*RELEASED)
        assert closing.conclude(folder, journal, Outcome.NEVER_LAUNCHED, Exit.REFUSED).evidence
    return folder


def test_ls_tells_the_states_apart_and_one_odd_folder_hides_no_other(cli: Cli) -> None:
    held, done = cli.lease(ASKED, MADE, endpoint=REAL), cli.lease(ASKED, MADE, RELEASED)
    unbegun, ended = cli.lease(endpoint=REAL), cli.lease(ASKED, MADE)
    damaged, linked, unreadable = (cli.lease(ASKED, endpoint=REAL) for _ in range(3))
    damaged.journal.write_bytes(damaged.journal.read_bytes().replace(b"g6.xlarge", b"g7.xlarge"))
    linked.journal.unlink()
    linked.journal.symlink_to(done.journal)
    unreadable.journal.unlink()
    unreadable.journal.mkdir()
    running = cli.lease(ASKED, MADE, endpoint=REAL)
    with Journal(running.journal, SystemClock()):
        seen = states(cli)
    assert seen[held.id].startswith("ORPHANED") and seen[unbegun.id].startswith("ORPHANED")
    assert (seen[done.id], seen[running.id], seen[damaged.id]) == ("released", "alive", "broken")
    assert (seen[linked.id], seen[unreadable.id]) == ("broken", "broken")
    assert seen[ended.id] == "its rehearsal cloud has ended"
    shown = cli("ls")
    assert shown.code == 0 and held.id in shown.out and done.id not in shown.out and ended.id not in shown.out
    assert "$" in shown.out and "deadline (UTC)" in shown.out
    todo = dict(line.split("gpulease release ")[1].split(None, 1) for line in shown.out.splitlines() if "gpulease release" in line)
    wanted = {held.id: "$0.8048/h", running.id: "$0.8048/h", unbegun.id: "nothing was rented"}
    wanted |= dict.fromkeys((damaged.id, linked.id, unreadable.id), "cost unknown, assume it runs")
    assert todo == wanted, "what to do about each that nobody has, and its price"
    assert all(
        f"{id}  broken" in shown.out and "$" not in shown.out.split(id)[1].split("\n")[0] for id in (damaged.id, linked.id, unreadable.id)
    )
    assert {lease["lease"]: lease["microUsdPerHour"] for lease in cli("ls", "--json").answer["leases"]}[held.id] == 804800
    wide = cli("ls", "--all").out
    assert max(map(len, wide.splitlines())) <= 80 and "ended: with its rehearsal cloud" in wide
    real, simulated = wide.split("SIMULATED: ")
    assert held.id in real and done.id in simulated.split("ORPHANED or broken: ")[0] and ended.id not in real, "what costs money first"


def test_what_is_on_its_way_out_or_rehearsed_or_has_no_price_says_so_instead_of_a_price(cli: Cli) -> None:
    leaving = cli.lease(ASKED, MADE, ("verdict", {"verdict": "leaving", "left": [], "settleSeconds": 1, "openIntents": 0}), endpoint=REAL)
    assert f"gpulease release {leaving.id}  no longer billed" in cli("ls").out
    rehearsed = cli.lease(ASKED, MADE, endpoint="not to be told")
    shown = cli("ls").out
    assert f"gpulease release {rehearsed.id}  $0.8048/h, SIMULATED" in shown and max(map(len, shown.splitlines())) <= 80


def test_a_rehearsal_whose_cloud_has_ended_is_neither_a_wait_nor_a_scare(cli: Cli) -> None:
    began = time.monotonic()
    folder = cli.lease(ASKED, MADE)
    before = folder.journal.read_bytes()
    for words in (["release", folder.id], ["ssh", folder.id]):
        said = cli(*words)
        assert said.code == 4 and "its rehearsal cloud has ended" in said.err, said
    assert "nothing of it was a machine or cost money" in cli("release", folder.id).err
    assert {f["check"]: f["result"] for f in cli("doctor", "--json").answer["findings"]}["old leases"] == "ok"
    assert folder.journal.read_bytes() == before and time.monotonic() - began < 45


def test_recheck_of_a_rehearsal_that_has_ended_says_when_it_was_seen_gone_and_leaves_the_proof_alone(cli: Cli) -> None:
    folder = sealed(cli)
    proof = (folder.evidence / "statement.dsse.json").read_bytes()
    said = cli("proof", "--recheck", folder.id, "--json")
    assert said.code == 4 and "has ended" in said.answer["what"] and "Last seen released at 20" in said.answer["why"]
    assert said.answer["next"] == f"gpulease proof {folder.id}"
    again = cli("release", folder.id, "--json")
    assert again.code == 0 and again.answer["verdict"] == "released" and again.answer["evidence"] == str(folder.evidence)
    assert (folder.evidence / "statement.dsse.json").read_bytes() == proof


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_port_that_somebody_else_has_now_is_no_rehearsal() -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert cloud_at(f"http://127.0.0.1:{server.server_port}/") == "gone"
        threading.Thread(target=lambda: silent.accept()[0].close(), daemon=True).start()
        assert cloud_at(f"http://127.0.0.1:{silent.getsockname()[1]}") == "unknown"
    assert (cloud_at(NOBODY), cloud_at("nonsense")) == ("gone", "unknown")


def test_what_keeps_release_from_looking_is_unproven_and_not_a_refusal(cli: Cli) -> None:
    """A card and a journal that both do not say where the machine is: exit 4 would say that nothing is wrong."""
    folder = cli.lease(endpoint=REAL)
    (folder.path / "lease.json").write_text("{")
    said = cli("release", folder.id, "--json")
    assert said.code == 20 and said.answer["verdict"] == "unproven" and "assume it is running" in said.answer["now"]
    assert "gpulease reap" in said.answer["error"]["next"]
    readable = cli.lease(ASKED, MADE, endpoint=REAL)
    readable.journal.chmod(0o644)
    said = cli("release", readable.id)
    assert said.code == 20 and "$0.8048/h" in said.out and "chmod 600" in said.out


def test_release_of_a_lease_that_somebody_has_is_refused_at_once(cli: Cli) -> None:
    folder = cli.lease(ASKED, MADE, endpoint=REAL)
    with Journal(folder.journal, SystemClock()):
        said = cli("release", folder.id, "--json")
    assert said.code == 4 and "another process" in said.answer["what"] and "Ctrl-C" in said.answer["next"]


@pytest.mark.parametrize("command", ["report", "proof", "logs", "ssh"])
def test_looking_at_a_lease_that_was_interrupted_early_ends_in_words(command: str, cli: Cli) -> None:
    for folder in (cli.lease(), cli.lease(ASKED), cli.lease(ASKED, MADE, endpoint=REAL), sealed(cli)):
        said = cli(command, folder.id) if command != "ssh" or folder.evidence.is_dir() else cli("logs", folder.id)
        assert said.code in (0, 4, 5) and said.out + said.err and "Traceback" not in said.err, said


def test_a_lease_without_a_proof_says_how_to_get_one(cli: Cli) -> None:
    folder = cli.lease(ASKED, MADE, endpoint=REAL)
    assert cli("proof", folder.id, "--json").answer["next"] == f"gpulease release {folder.id}"
    with Journal(folder.journal, SystemClock()):
        assert cli("proof", folder.id, "--json").answer["next"] == "gpulease ls"
    assert cli("proof", "--path", folder.id).code == 4, "a path that is not there is no answer"
    there = sealed(cli)
    assert cli("proof", "--path", there.id).out.strip() == str(there.evidence)


def test_a_lease_that_somebody_has_is_reported_as_going_on_and_an_orphan_as_what_it_is(cli: Cli) -> None:
    folder = cli.lease(ASKED, MADE, endpoint=REAL)
    with Journal(folder.journal, SystemClock()):
        said, record = cli("report", folder.id).out, cli("report", folder.id, "--json").answer["leases"][0]
    assert "NOT CLEAN" not in said and "going on" in said.splitlines()[0] and "It is still going on" in said and record["goingOn"] is True
    assert "Not shown to be gone: instance i-1" in said, "what is there is still said"
    assert "NOT CLEAN: the run's own verdict is unproven" in cli("report", folder.id).out, "its owner is gone: it has ended"


def test_a_beginning_that_many_leases_have_says_how_many_more_there_are(cli: Cli) -> None:
    for _ in range(7):
        cli.lease(ASKED, MADE, RELEASED)
    said = cli("release", "r-", "--json")
    assert said.code == 2 and "could be 7 leases" in said.answer["what"] and said.answer["what"].endswith(" and 2 more")


def test_a_proof_that_does_not_hold_is_not_shown(cli: Cli) -> None:
    folder = sealed(cli)
    assert cli("proof", folder.id).code == 0
    page = folder.evidence / "report.md"
    page.write_text(page.read_text() + "\n\nAll is well.\x1b[2J\n")
    said = cli("proof", folder.id)
    assert said.code == 5 and "All is well" not in said.out and "NOT VERIFIED" in said.out
    page.unlink()
    assert cli("proof", folder.id, "--json").code == 5


def test_logs_are_harmless_and_an_absent_one_is_explained(cli: Cli) -> None:
    folder = cli.lease(ASKED, MADE, endpoint=REAL)
    assert "left no log here" in cli("logs", folder.id).out
    with Journal(folder.journal, SystemClock()):
        assert f"gpulease ssh {folder.id} tail" in cli("logs", folder.id).out
    (folder.path / "server.log").write_bytes(b"ok\n\x1b]0;owned\x07\x1b[2Jevil\xff\r\n\xc2\x9b31m\n")
    said = cli("logs", folder.id)
    assert "evil" in said.out and not {"\x1b", "\x07", "\x9b", "\r"} & set(said.out)


def test_ssh_on_a_machine_of_the_users_own_takes_their_key_and_host_key(cli: Cli, tmp_path: Path) -> None:
    """The keys in the lease's folder were made for rented machines; and ssh splits at blanks, and expands percent signs."""
    cli.state = tmp_path / "a state%h"
    cli.env["XDG_STATE_HOME"] = os.environ["XDG_STATE_HOME"] = str(cli.state)
    settings = {"host": "me@203.0.113.9", "port": 2222, "identity": "/home/me/key", "hostKey": "ssh-ed25519 AAAATHEIRS"}
    folder = ledger.create({"provider": "static", "settings": settings, "access": {"user": "me", "port": 2222}})
    facts = {"address": "203.0.113.9"}
    lock = {"class": "host-lock", "id": "x", "phase": "here", "state": "held", "billed": False, "region": "", "facts": facts}
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "static", "settings": settings})
        journal.append("observe", lock)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    said = cli.process("ssh", folder.id, "nvidia-smi", "-L", env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    words = said.out.splitlines()
    known = folder.path / "keys" / "known_hosts"
    assert words[-3:] == ["me@203.0.113.9", "nvidia-smi", "-L"] and words[words.index("-i") + 1] == "/home/me/key", said
    assert f'UserKnownHostsFile="{str(known).replace("%", "%%")}"' in words and "StrictHostKeyChecking=yes" in words
    assert known.read_text() == "[203.0.113.9]:2222 ssh-ed25519 AAAATHEIRS\n"


def test_ssh_on_a_machine_without_an_address_goes_through_the_users_own_aws_program(cli: Cli, tmp_path: Path) -> None:
    settings = {"region": "us-east-1", "regions": ["us-east-1", "us-west-2"], "profile": "50% work", "endpoint": None}
    folder = ledger.create({"provider": "aws", "settings": settings, "access": {"user": "ubuntu", "port": 22, "reach": "endpoint"}})
    keys.make_pair(folder.path / "keys", "host_ed25519")
    machine = {"class": "instance", "id": "i-0123456789abcdef0", "phase": "here", "state": "running", "billed": True}
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "settings": settings})
        journal.append("observe", {**machine, "region": "us-west-2", "facts": {}})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    words = cli.process("ssh", folder.id, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}).out.splitlines()
    assert words[-1] == "ubuntu@i-0123456789abcdef0.us-west-2"
    proxy = (
        "ProxyCommand=aws ec2-instance-connect open-tunnel --instance-id i-0123456789abcdef0 --remote-port 22 --region us-west-2 --profile"
    )
    assert f"{proxy} '50%% work'" in words
    assert (folder.path / "keys" / "known_hosts").read_text().startswith("i-0123456789abcdef0.us-west-2 ssh-ed25519 ")


@pytest.mark.slow
def test_reap_and_everything_after_it_on_a_lease_of_another_machine(bench: Bench) -> None:
    process = bench.start(*bench.run_words(), "--keep", "5m")
    assert bench.until(lambda: bench.stage("serve"))
    pid = int(next(b["detail"] for b in bench.entries("guard") if b["guard"] == "watchdog").removeprefix("pid "))
    os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lease, endpoint = bench.folder.id, bench.cloud.endpoint
    bench.env["XDG_STATE_HOME"] = str(bench.state / "other")
    dry = bench.end(bench.start("reap", "--endpoint", endpoint, "--json"))
    assert dry.code == 0 and dry.answer["leases"][0]["state"] == "in time"
    named = bench.end(bench.start("reap", lease, "--endpoint", endpoint, "--json"))
    assert named.code == 21, "named, seen, billed, and only looked at"
    went = bench.end(bench.start("reap", "--go", lease, "--endpoint", endpoint, "--json"))
    assert went.code in (0, 20) and not bench.left()
    for words in (["ls", "--all"], ["report", lease], ["proof", lease], ["logs", lease], ["proof", lease, "--recheck"]):
        ended = bench.start(*words, "--json") if words[0] in ("ls", "report", "proof") else bench.start(*words)
        out, err = ended.communicate(timeout=60)
        assert out and "Traceback" not in err, (words, err)
    bench.cloud.stop()
    listed = bench.end(bench.start("ls", "--json"))
    assert listed.code == 0


@pytest.mark.slow
def test_what_a_machine_says_reaches_no_terminal_as_it_is(bench: Bench) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\rnow:   nothing is running"
    bench.cloud.faults([{"host": {"runtime_exit": f"ValueError: {evil}"}}])
    process = bench.start(*[word for word in bench.run_words() if word != "--json"])
    said = "".join(process.communicate(timeout=90))
    assert process.returncode == 5 and "evil" in said
    for words in (["logs"], ["proof"], ["report"], ["ls", "--all"], ["proof", "--json"], ["report", "--json"]):
        said += "".join(bench.start(*words).communicate(timeout=60))
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(said)
    assert subprocess.run([*GPULEASE, "verify", str(bench.folder.evidence)], env=bench.env, capture_output=True).returncode == 0
