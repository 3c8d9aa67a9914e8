"""The job against OpenSSH's sshd and vLLM itself: the same profile, playbooks and endings as on a rented GPU.

vLLM needs half a minute to start, so each test looks at as much of one run as it can.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import Exit
from provisioner.ledger import standing
from provisioner.model import Verdict
from tests.real.conftest import Client
from tests.real.machine import listening

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CASES, WARMUP, VANTAGES = 32, 2, ("host", "tunnel")
EXPORT = re.compile(r'export OPENAI_BASE_URL=(?P<url>\S+) OPENAI_API_KEY="\$\(cat (?P<key>\S+)\)"')


def samples(client: Client) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (client.folder.path / "samples.jsonl").read_text().splitlines()]
    return [line for line in lines if "case" in line]


def kept(client: Client) -> tuple[str, str, str]:
    """The line for the user's shell, and the two things it says."""
    assert client.until(lambda: bool(EXPORT.search(client.story())), 30)
    found = EXPORT.search(client.story())
    assert found
    return found[0], found["url"], Path(found["key"]).read_text()


def asked(url: str, key: str | None = None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


def metric(text: str, name: str) -> int:
    """A counter of vLLM's, over all its labels."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert found, f"vLLM shows no {name}"
    return int(sum(float(value) for value in found))


def nothing_is_left(client: Client) -> None:
    assert client.until(lambda: not client.machine.processes(), 20), client.machine.processes()
    assert client.machine.left() == []
    assert standing(client.folder).held.verdict is Verdict.RELEASED
    assert client.verify() == 0


def test_the_whole_job_and_what_the_real_server_says_of_it(client: Client) -> None:
    client.reach("OPENAI_BASE_URL", "--keep", "20s")
    _, url, key = kept(client)

    servers = client.machine.servers()
    assert len(servers) >= 3, "the API, its engine and a worker"
    reachable = listening(client.machine.processes())
    assert reachable and {address for address, _ in reachable} == {"127.0.0.1"}, reachable
    assert not [text for text in servers.values() if key in text], "the key is in a process list"
    assert [asked(f"{url}/models"), asked(f"{url}/models", key[:-1]), asked(f"{url}/models", key)] == [401, 401, 200]

    taken = samples(client)
    assert len(taken) == len(VANTAGES) * (CASES + WARMUP)
    assert {(s["status"], s["error"]) for s in taken} == {(200, None)}
    assert all(s["first_ns"] is not None and s["sent_ns"] < s["first_ns"] <= s["done_ns"] for s in taken)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url.removesuffix('/v1')}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    # Besides ours there was one completion, by which the server was seen to be ready.
    assert metric(text, "vllm:request_success_total") == len(taken) + 1
    assert 0 < metric(text, "vllm:generation_tokens_total") - sum(s["tokens_out"] for s in taken) <= 8
    assert metric(text, "vllm:prompt_tokens_total") > sum(s["tokens_in"] for s in taken)

    ended = client.end(client.started[-1])
    assert ended.code == Exit.OK, ended.story
    stats = ended.answer["results"]["stats"]
    for vantage in VANTAGES:
        assert (stats[vantage]["sent"], stats[vantage]["failed"]) == (CASES, 0)
        assert 0 < stats[vantage]["ttftP50Ns"] <= stats[vantage]["e2eP50Ns"]
    serving = next(b["detail"] for b in client.entries("stage") if (b["stage"], b["state"]) == ("serve", "done"))
    assert serving["keyRequired"] is True and serving["exposed"] == [] and serving["figures"]["kv_cache_tokens"] > 100_000
    assert key not in "".join(path.read_text("utf-8", "replace") for path in client.folder.path.iterdir() if path.is_file())
    nothing_is_left(client)
    proof = subprocess.run(client.words("verify", str(client.folder.evidence)), env=client.env, capture_output=True, text=True).stdout
    assert "it was not stopped" in proof and "that the machine is off" in proof, proof
    print(ended.story, proof, sep="\n")


def test_the_official_client_talks_through_the_kept_tunnel_until_ctrl_c(client: Client) -> None:
    client.reach("OPENAI_BASE_URL", "--keep", "5m")
    line, _, _ = kept(client)
    script = Path(__file__).parent / "openai_client.py"
    command = f'{line}; exec "$0" "$1" "$2"'
    said = subprocess.run(
        ["sh", "-c", command, str(client.machine.vllm / "bin/python"), str(script), "tiny"], capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 0, said.stderr
    seen = json.loads(said.stdout)
    print("openai", seen)
    assert seen["models"] == ["tiny"] and seen["refused"] == [401, 401]
    assert seen["text"] and seen["streamed"] == seen["text"] and seen["parts"] > 1 and seen["streamedTokens"] == seen["tokens"]

    client.started[-1].send_signal(signal.SIGINT)
    ended = client.end(client.started[-1], 60)
    assert ended.code == Exit.SIGINT, ended.story
    assert len(samples(client)) == len(VANTAGES) * (CASES + WARMUP)
    nothing_is_left(client)


@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_a_run_that_ends_in_the_middle_of_the_eval_leaves_no_server_behind(how: str, client: Client) -> None:
    process = client.start(*client.run_words())
    began = client.until(lambda: (client.stage("eval") and len(samples(client)) > 3) or process.poll() is not None, 240)
    assert began and process.poll() is None, client.story()
    assert len(client.machine.servers()) >= 3
    if how == "ctrl-c":
        process.send_signal(signal.SIGINT)
        ended = client.end(process, 60)
        assert ended.code == Exit.SIGINT, ended.story
    else:
        os.killpg(process.pid, signal.SIGKILL)
        assert client.until(lambda: standing(client.folder).held.verdict is Verdict.RELEASED, 90)
        assert [b["by"] for b in client.entries("recovered")] == ["watchdog"]
    assert 3 < len(samples(client)) < len(VANTAGES) * (CASES + WARMUP), "it had not ended by itself"
    nothing_is_left(client)
