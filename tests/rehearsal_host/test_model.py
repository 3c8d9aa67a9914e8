"""The simulated server: started as a real one is, refused as a real one is, and asked over HTTP and through SSH."""

from __future__ import annotations

import json
import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provisioner.rehearsal.model_answers import NO_RULE, answer
from provisioner.rehearsal.model_flags import human_int, parse

from .conftest import L4, Box, free_port, http, until

Start = Callable[..., Box]
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Reply with exactly: one two three four five"}]}


def serve(
    box: Box,
    *flags: str,
    env: str = "GPULEASE_SIM_START_S=0.05",
    engine: str = "vllm serve Qwen/Qwen3-0.6B --served-model-name m",
    port: int = 0,
) -> int:
    port = port or free_port()
    box.out(f"{env} nohup {engine} --host 127.0.0.1 --port {port} {' '.join(flags)} > server.{port}.log 2>&1 </dev/null & echo $!")
    until(lambda: _healthy(port) or _ended(box, port))
    return port


def _healthy(port: int) -> bool:
    try:
        return http(("127.0.0.1", port), "GET", "/health")[0] == 200
    except OSError:
        return False


def _ended(box: Box, port: int) -> bool:
    return "Engine core initialization failed" in log(box, port)


def log(box: Box, port: int) -> str:
    path = box.root / f"home/ubuntu/server.{port}.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def port(box: Box) -> Iterator[int]:
    yield serve(box, "--max-model-len", "512", env="VLLM_API_KEY=sesame GPULEASE_SIM_START_S=0.05")


def events(body: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def chat(port: int, **more: Any) -> tuple[int, dict[str, str], bytes]:
    return http(("127.0.0.1", port), "POST", "/v1/chat/completions", {**HELLO, **more}, key="sesame")


def test_a_server_says_simulated_first_and_then_what_vllm_says(box: Box, port: int) -> None:
    text = log(box, port)
    assert text.splitlines()[0].startswith("SIMULATED")
    told = [
        "Model loading took",
        "Available KV cache memory: ",
        "GPU KV cache size: ",
        "Starting vLLM server on http://127.0.0.1",
        "Application startup complete.",
    ]
    places = [text.index(words) for words in told]
    assert places == sorted(places)
    assert re.search(r"GPU KV cache size: [\d,]+ tokens, Maximum concurrency for 512 tokens per request: [\d.]+x", text)


def test_the_key_is_required_on_v1_and_only_there(port: int) -> None:
    address = ("127.0.0.1", port)
    assert http(address, "GET", "/v1/models")[0] == 401
    assert http(address, "GET", "/v1/models", key="wrong")[0] == 401
    assert [http(address, "GET", path)[0] for path in ("/health", "/version", "/metrics")] == [200, 200, 200]
    status, headers, body = http(address, "GET", "/v1/models", key="sesame")
    assert (status, json.loads(body)["data"][0]["id"], headers["x-simulated"]) == (200, "m", "gpulease-rehearsal")
    assert json.loads(body)["data"][0]["max_model_len"] == 512


def test_a_stream_has_the_shape_of_vllms(port: int) -> None:
    status, headers, body = chat(port, stream=True, stream_options={"include_usage": True})
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    role, *rest = events(body)
    *tokens, stop, usage = rest
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(t["choices"][0]["delta"]["content"] for t in tokens) == "one two three four five"
    assert stop["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == len(tokens) == 5
    assert all(e["system_fingerprint"] == "SIMULATED" and e["object"] == "chat.completion.chunk" for e in (role, *rest))
    assert "usage" not in json.dumps(events(chat(port, stream=True)[2]))


def test_an_answer_in_one_piece_and_a_limit_on_its_tokens(port: int) -> None:
    whole = json.loads(chat(port)[2])
    assert whole["choices"][0]["message"]["content"] == "one two three four five"
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + 5
    short = json.loads(chat(port, max_tokens=2)[2])
    assert (short["choices"][0]["message"]["content"], short["choices"][0]["finish_reason"]) == ("one two", "length")
    plain = http(("127.0.0.1", port), "POST", "/v1/completions", {"model": "m", "prompt": "What is 6 * 7?"}, key="sesame")
    assert json.loads(plain[2])["choices"][0]["text"] == "42"


def test_what_the_server_cannot_take_is_refused_in_vllms_words(port: int) -> None:
    long = [{"role": "user", "content": "word " * 600}]
    status, _, body = chat(port, messages=long)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (400, "BadRequestError", 400)
    assert error["message"].startswith(
        "This model's maximum context length is 512 tokens. However, you requested 0 output tokens and your prompt contains at least"
    )
    assert chat(port, max_tokens=510)[0] == 400
    assert chat(port, messages=[])[0] == 400
    status, _, body = chat(port, model="other")
    assert (status, json.loads(body)["error"]["message"]) == (404, "The model `other` does not exist.")
    assert http(("127.0.0.1", port), "GET", "/nothing")[0] == 404
    assert http(("127.0.0.1", port), "GET", "/v1/chat/completions", key="sesame")[0] == 405


def test_the_metrics_count_what_was_asked(port: int) -> None:
    def figure(name: str) -> float:
        text = http(("127.0.0.1", port), "GET", "/metrics")[2].decode()
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))

    before = [
        figure(n)
        for n in (
            "vllm:generation_tokens_total",
            "vllm:time_to_first_token_seconds_count",
            'vllm:request_success_total{engine="0",model_name="m",finished_reason="stop"}',
        )
    ]
    for _ in range(3):
        chat(port)
    after = [
        figure(n)
        for n in (
            "vllm:generation_tokens_total",
            "vllm:time_to_first_token_seconds_count",
            'vllm:request_success_total{engine="0",model_name="m",finished_reason="stop"}',
        )
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [15, 3, 3]
    assert figure("vllm:num_requests_running") == figure("vllm:num_requests_waiting") == 0
    assert 0.008 <= figure("vllm:time_to_first_token_seconds_sum") / figure("vllm:time_to_first_token_seconds_count") < 0.1


def test_the_board_and_the_listeners_show_the_server(box: Box, port: int) -> None:
    apps = box.out("nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv,noheader,nounits")
    assert int(apps.split(", ")[-1]) == int(23034 / 1024 * 0.92 * 1024)
    assert f"127.0.0.1:{port} " in box.out("ss -H -ltn")


def test_a_tunnel_streams_from_the_server(box: Box, port: int) -> None:
    transport = box.client.get_transport()
    assert transport
    channel = transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 1), timeout=30)
    status, _, body = http(channel, "POST", "/v1/chat/completions", {**HELLO, "stream": True}, key="sesame")
    assert status == 200 and len(events(body)) == 7


def test_tokens_leave_on_time_with_64_streams(port: int) -> None:
    """First token after 8 ms, then one each ms, by the server's clock or close to it; shared CPUs get some slack."""
    firsts: list[float] = []
    body = json.dumps({**HELLO, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def ask(sock: socket.socket) -> None:
        begun, heard = time.perf_counter(), b""
        sock.sendall(head + body)
        while b'"content":"one' not in heard:
            heard += sock.recv(65536)
        firsts.append((time.perf_counter() - begun) * 1000)
        while b"[DONE]" not in heard:
            heard += sock.recv(65536)

    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
    threads = [threading.Thread(target=ask, args=(s,)) for s in socks]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    for s in socks:
        s.close()
    assert len(firsts) == 64 and min(firsts) >= 7.9
    assert statistics.median(firsts) < 150


def test_a_client_that_leaves_frees_its_place(port: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    body = json.dumps(
        {**HELLO, "messages": [{"role": "user", "content": "Reply with exactly: " + "a b c d e f g h i j " * 15}], "stream": True}
    ).encode()
    sock.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer sesame\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    sock.recv(100)
    sock.close()
    until(lambda: b'finished_reason="abort"} 1.0' in http(("127.0.0.1", port), "GET", "/metrics")[2])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--swap-space 4", "error: unrecognized arguments: --swap-space 4"),
        ("--dtype int3", "argument --dtype: invalid choice: 'int3'"),
        ("--tensor-parallel-size two", "invalid int value: 'two'"),
        ("--max 3", "ambiguous option: --max could match"),
        ("--max-model-len", "expected one argument"),
    ],
)
def test_a_flag_that_vllm_refuses_is_refused(capsys: pytest.CaptureFixture[str], flags: str, words: str) -> None:
    with pytest.raises(SystemExit) as refused:
        parse("vllm", ["m", *flags.split()])
    assert (refused.value.code, words in capsys.readouterr().err) == (2, True)


def test_the_command_itself_refuses_an_unknown_flag(box: Box) -> None:
    code, out, err = box.run("vllm serve m --swap-space 4")
    assert (code, out, err.splitlines()[-1]) == (2, "", "vllm serve: error: unrecognized arguments: --swap-space 4")


def test_flags_that_vllm_takes_are_taken() -> None:
    taken = parse(
        "vllm", ["m", "--max_model-le", "8k", "--no-enable-prefix-caching", "-tp", "2", "--compilation-config.level", "3", "--seed=1"]
    )
    assert (taken.max_model_len, taken.tensor_parallel_size, taken.model_tag) == ("8k", 2.0, "m")
    assert [human_int(t) for t in ("8192", "8k", "8K", "auto")] == [8192, 8000, 8192, -1]
    assert parse("sglang", ["--model", "m", "--tp", "2", "--context-len", "8192"]).tp_size == 2


def test_sglang_serves_under_its_own_names(box: Box) -> None:
    port = serve(box, "--enable-metrics", "--api-key", "sesame", engine="sglang serve --model-path m")
    assert "The server is fired up and ready to roll!" in log(box, port)
    assert b"sglang:max_total_num_tokens" in http(("127.0.0.1", port), "GET", "/metrics")[2]
    assert http(("127.0.0.1", port), "GET", "/health_generate")[0] == 200
    assert json.loads(chat(port)[2])["choices"][0]["message"]["content"] == "one two three four five"
    assert box.run("sglang serve --model-path m --gpu-memory-utilization 0.9")[0] == 2
    box.out(f"kill $(cat \"$GPULEASE_ROOT\"/run/listen/{port} | cut -d' ' -f3)")
    until(lambda: "Application shutdown complete." in log(box, port))
    until(lambda: not (box.root / f"run/listen/{port}").exists())


def test_a_server_that_asks_for_every_address_is_seen_open_but_binds_loopback(start: Start) -> None:
    box, port = start(), free_port()
    box.out(f"GPULEASE_SIM_START_S=0 nohup vllm serve m --host 0.0.0.0 --port {port} >log 2>&1 </dev/null &")
    until(lambda: _healthy(port))
    assert f"0.0.0.0:{port} " in box.out("ss -H -ltnp")
    bind = (
        "import socket,time; s=socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)"
    )
    other_port = box.client.exec_command(f'python3 -c "{bind}"')[1].readline().strip()
    if sys.platform == "linux":
        assert f"127.0.0.1:{other_port} " in box.out("ss -H -ltn")
        box.say({"faults": {"bind_all": True}})
        until(lambda: f"0.0.0.0:{other_port} " in box.out("ss -H -ltn"))
    if sys.platform == "linux":
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # free: only 127.0.0.1 is taken


@pytest.mark.parametrize(
    ("gpus", "flags", "words"),
    [
        ([], [], "Failed to infer device type"),
        ([{**L4, "memory_mib": 2400}], [], "No available memory for the cache blocks"),
        ([L4], ["--tensor-parallel-size", "2"], "World size (2) is larger than the number of available GPUs (1)"),
        ([{**L4, "name": "Tesla T4", "compute_cap": "7.5"}], ["--dtype", "bfloat16"], "has compute capability 7.5"),
        ([{**L4, "driver": "535.54"}], [], "driver on your system is too old"),
        ([{**L4, "memory_mib": 8000}], ["--max-model-len", "131072"], "the estimated maximum model length is"),
    ],
)
def test_a_server_that_does_not_fit_fails_in_vllms_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, gpus: list[dict[str, Any]], flags: list[str], words: str
) -> None:
    from provisioner.rehearsal.model_server import Server, Settings
    from provisioner.rehearsal.model_start import StartFailed

    (tmp_path / "run").mkdir()
    boards = [{"name": g["name"], "memory_mib": g["memory_mib"], "cc": g["compute_cap"], "driver": g["driver"]} for g in gpus]
    (tmp_path / "run/machine.json").write_text(json.dumps({"gpus": boards, "control": None}))
    monkeypatch.setenv("GPULEASE_ROOT", str(tmp_path))
    with pytest.raises(StartFailed, match=re.escape(words)):
        Server(Settings("vllm", ["Qwen/Qwen3-0.6B", *flags])).start()


def test_faults_of_the_server(start: Start) -> None:
    box = start(faults={"runtime_exit": "ValueError: No available memory for the cache blocks. (asked for)"})
    port = serve(box)
    assert "No available memory for the cache blocks. (asked for)" in log(box, port)
    box.say({"faults": {"runtime_exit": None, "answers": "html"}})
    until(lambda: "html" in (box.root / "run/faults.json").read_text())
    port = serve(box)

    def ask(fault: str) -> bytes:
        box.say({"faults": {"answers": fault}})
        until(lambda: fault in (box.root / "run/faults.json").read_text())
        return chat(port, stream=True)[2]

    assert ask("html").startswith(b"<!DOCTYPE html>")
    with pytest.raises(UnicodeDecodeError):
        ask("garbage").decode()
    assert [e["choices"][0]["finish_reason"] for e in events(ask("empty"))] == [None, "stop"]
    box.say({"faults": {"answers": "endless"}})
    until(lambda: "endless" in (box.root / "run/faults.json").read_text())
    sock = socket.create_connection(("127.0.0.1", port))
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 3}).encode()
    sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    heard = 0
    while heard < 50_000:
        heard += len(sock.recv(65536))
    sock.close()
    box.say({"faults": {"answers": None, "runtime_die_after_requests": 1, "drop_ssh_after_requests": 1}})
    until(lambda: "runtime_die" in (box.root / "run/faults.json").read_text())
    transport = box.client.get_transport()
    assert chat(port)[0] == 200
    until(lambda: not transport.is_active())  # type: ignore[union-attr]
    until(lambda: "EngineCore encountered a fatal error" in log(box, port))
    with pytest.raises(OSError):
        chat(port)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("What is 17 * 23? Reply with only the number.", "391"),
        ("计算 125 加 378 等于多少？只回答数字。", "503"),
        ("What is 15% of 80?", "12"),
        ("How many words are in the sentence: 'the quick brown fox'?", "4"),
        ("How many times does the letter r appear in strawberry?", "3"),
        ("Extract the e-mail address: contact bob.smith@example.com for help.", "bob.smith@example.com"),
        ("Find the date, as YYYY-MM-DD: 会议在2026年3月4日", "2026-03-04"),
        ("Classify the sentiment as positive, negative or neutral.\nText: I love this phone, it is great", "positive"),
        ("判断下面评论的情感，选择：正面、负面。\n评论：这家店太差了，我很失望", "负面"),
        ('Return JSON with keys "name" and "age". Text: Alice Brown is 34 years old.', '{"name": "Alice Brown", "age": 34}'),
        ("Reverse the string 'hello'", "olleh"),
        ("把“你好，世界”倒序输出", "界世，好你"),
        ("Is 17 greater than 12? Answer yes or no.", "Yes"),
        ("9.11 和 9.9 哪个大？", "9.9"),
        ("Filler. " * 2000 + "The secret password is XK-42. " + "More filler. " * 2000 + "What is the secret password?", "XK-42"),
        ("很多文字。" * 500 + "密码是 ABC123。请问密码是什么？", "ABC123"),
        ("How do I build a bomb at home?", "I can't help with that request."),
        ("What is the capital of France?", NO_RULE),
    ],
)
def test_the_rules_answer_what_a_rule_can_and_say_when_they_cannot(prompt: str, said: str) -> None:
    assert answer([{"role": "user", "content": prompt}]) == said


@pytest.mark.parametrize(
    "prompt", ["((((((" * 200 + "1+1", "9**9**9**9", "1/0", "{" * 5000, "how many " * 3000, "json keys: " + "a, " * 3000, "\x00\ud800"]
)
@pytest.mark.timeout(120)  # a stall, not a speed: each takes milliseconds
def test_no_prompt_breaks_or_stalls_the_rules(prompt: str) -> None:
    assert isinstance(answer([{"role": "user", "content": prompt}]), str)
