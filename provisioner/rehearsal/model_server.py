"""The simulated inference server: what `vllm serve` and `sglang serve` are on a simulated machine.

    vllm serve MODEL --host 127.0.0.1 --port N …      sglang serve --model-path MODEL …

It speaks the OpenAI API with vLLM's shapes, refuses the flags the real one refuses (model_flags.py), starts and
fails with the real one's words (model_start.py), counts its own metrics (model_metrics.py) and answers from rules
(model_answers.py). Everything it says is marked: the first log line, `system_fingerprint`, the header X-Simulated.
Asked for 0.0.0.0 it binds loopback and only *registers* as open, so that no rehearsal opens a port of a laptop.

Timing is the point: tokens leave by an absolute schedule (first after 8 ms, then one each ms), in one asyncio loop
whose timer is finer than epoll's millisecond; a token that is late leaves with the next, as an engine's batch does.
GPULEASE_SIM_FIRST_TOKEN_MS, GPULEASE_SIM_TOKEN_MS and GPULEASE_SIM_START_S change it. Stdlib only, without site.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from .model_api import ModelApi
from .model_flags import human_int, load, parse
from .model_http import Connection, Reply
from .model_metrics import Metrics
from .model_start import Log, Sizes, StartFailed, check_board, narrate, sizes


class Settings:
    """What the command line, the environment and the machine say together."""

    def __init__(self, engine: str, argv: list[str]) -> None:
        self.engine = engine
        self.version = str(load(engine)["version"])
        given = vars(parse(engine, argv))
        get = given.get
        sglang = engine == "sglang"
        self.model = str(get("model_path") if sglang else get("model_tag") or get("model") or "Qwen/Qwen3-0.6B")
        if sglang and not get("model_path"):
            print("sglang serve: error: the following arguments are required: --model-path/--model", file=sys.stderr)
            sys.exit(2)
        names = get("served_model_name")
        self.names: list[str] = [names] if isinstance(names, str) else list(names or [self.model])
        self.host = str(get("host") or ("127.0.0.1" if sglang else "0.0.0.0"))
        self.port = int(get("port") or (30000 if sglang else 8000))
        keys = get("api_key")
        self.keys: list[str] = [keys] if isinstance(keys, str) else list(keys or [])
        if not self.keys and not sglang and os.environ.get("VLLM_API_KEY"):
            self.keys = [os.environ["VLLM_API_KEY"]]
        self.max_len = human_int(str(get("context_length" if sglang else "max_model_len") or -1))
        self.max_running = int(float(get("max_running_requests" if sglang else "max_num_seqs") or 256))
        self.fraction = float(get("mem_fraction_static" if sglang else "gpu_memory_utilization") or (0.88 if sglang else 0.92))
        self.tensor_parallel = int(float(get("tp_size" if sglang else "tensor_parallel_size") or 1))
        self.quantization, self.dtype = str(get("quantization") or ""), str(get("dtype") or "auto")
        self.metrics_on = not sglang or bool(get("enable_metrics"))
        self.root = Path(os.environ.get("GPULEASE_ROOT") or "/nonexistent")

    def machine(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.root / "run/machine.json").read_text())
            return found
        except (OSError, ValueError):  # run by hand, outside a machine
            return {"gpus": [{"name": "SIMULATED", "memory_mib": 24576, "cc": "8.9", "driver": "580.126.09"}], "control": None}

    def faults(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.root / "run/faults.json").read_text())
            return found
        except (OSError, ValueError):
            return {}

    def speed(self, fault: str, variable: str, default: float) -> float:
        return float(os.environ.get(variable) or self.faults().get(fault) or default)


class Server:
    def __init__(self, settings: Settings) -> None:
        self.settings, self.log = settings, Log(settings.engine)
        self.machine = settings.machine()
        self.metrics = Metrics(settings.engine, settings.names[0], 0)
        self.size: Sizes | None = None
        self.ready = False
        self.answered = 0
        self.open = 0
        self._registered: list[Path] = []
        self._api = ModelApi(self)

    def handle(self, reply: Reply, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self._api.handle(reply, method, path, headers, body)

    def allowed(self, path: str, authorization: str) -> bool:
        """vLLM guards /v1 only; a comparison that takes as long for a wrong key as for a right one."""
        if not self.settings.keys or not path.startswith("/v1"):
            return True
        given = authorization.removeprefix("Bearer ").encode()
        return any(hmac.compare_digest(given, key.encode()) for key in self.settings.keys)

    def count_answer(self) -> None:
        """After every reply: the faults that wait for a number of them."""
        self.answered += 1
        faults = self.settings.faults()
        counted = ("drop_ssh_after_requests", "spot_notice_after_requests")
        if any(faults.get(name) is not None for name in counted) and self.machine.get("control"):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.connect(self.machine["control"])
                link.sendall(b"requests\0/\0%d" % self.answered)
        limit = faults.get("runtime_die_after_requests")
        if limit is not None and self.answered >= int(limit):
            self.log.say("EngineCore encountered a fatal error.", where="core.py:945", level="ERROR")
            self.log.say("torch.AcceleratorError: CUDA error: an illegal memory access was encountered (SIMULATED)", level="ERROR")
            self._leave(1)

    def start(self) -> Sizes:
        """What happens before the port is open; StartFailed with the engine's words."""
        s, faults = self.settings, self.settings.faults()
        boards = self.machine["gpus"]
        words = faults.get("runtime_exit")
        if words:
            raise StartFailed(str(words))
        others = self._others() + (4096 if faults.get("other_gpu_process") else 0)
        sglang = s.engine == "sglang"
        if not sglang:
            check_board(boards, s.dtype, others, s.fraction)
        return sizes(
            s.model,
            boards,
            fraction=s.fraction,
            tensor_parallel=s.tensor_parallel,
            max_len=s.max_len,
            quantization=s.quantization,
            sglang=sglang,
        )

    def _others(self) -> int:
        used = 0
        folder = self.settings.root / "run/gpu"
        for path in folder.glob("[0-9]*") if folder.is_dir() else ():
            with contextlib.suppress(OSError, ValueError, IndexError):
                os.kill(int(path.name), 0)
                used += int(json.loads(path.read_text())[0])
        return used

    async def serve(self) -> int:
        s, loop = self.settings, asyncio.get_running_loop()
        self.log.first(s.version)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, 0)
        try:
            # The real one binds first, so that a busy port fails early.
            server = await loop.create_server(lambda: Connection(self), self._bind(), s.port, backlog=512)
        except OSError as e:
            self.log.uvicorn(f"[Errno {e.errno}] error while attempting to bind on address ('{s.host}', {s.port}): {e.strerror}", "ERROR")
            return 1
        try:
            size = self.start()
        except StartFailed as e:
            server.close()
            await asyncio.sleep(0.05)
            self.log.failed(str(e))
            return 1
        port = server.sockets[0].getsockname()[1]
        self._register(port, size)
        delay, began = s.speed("start_delay_s", "GPULEASE_SIM_START_S", 0.4), loop.time()
        for share, say in narrate(self.log, s.engine, s.model, size, f"http://{s.host}:{port}"):
            await asyncio.sleep(max(0.0, began + share * delay - loop.time()))
            say()
        self.size, self.metrics = size, Metrics(s.engine, s.names[0], size.kv_tokens)
        self.ready = True
        await server.serve_forever()
        return 0

    def _bind(self) -> str:
        return self.settings.host if self.settings.host in ("127.0.0.1", "::1", "localhost") else "127.0.0.1"

    def _register(self, port: int, size: Sizes) -> None:
        root = self.settings.root / "run"
        if (root / "listen").is_dir():
            shown = "0.0.0.0" if self.settings.host in ("0.0.0.0", "::", "") else self.settings.host
            (root / "listen" / str(port)).write_text(f"{shown} {port} {os.getpid()} {self.settings.engine}\n")
        if (root / "gpu").is_dir():
            (root / "gpu" / str(os.getpid())).write_text(json.dumps(size.used_mib))
        self._registered = [root / "listen" / str(port), root / "gpu" / str(os.getpid())]

    def _leave(self, code: int) -> NoReturn:
        if code == 0:
            for line in (
                "Shutting down",
                "Waiting for application shutdown.",
                "Application shutdown complete.",
                f"Finished server process [{os.getpid()}]",
            ):
                self.log.uvicorn(line)
        for path in self._registered:
            path.unlink(missing_ok=True)
        sys.stdout.flush()
        os._exit(code)  # open streams end here, as with a killed engine


class FineSelector(selectors.SelectSelector):
    """epoll waits in whole milliseconds; a token's time is one."""


def main(engine: str, argv: list[str] | None = None) -> NoReturn:
    words = list(sys.argv[1:] if argv is None else argv)
    version = load(engine)["version"]
    if words[:1] in (["--version"], ["-v"], ["version"]):
        print(f"{version} (SIMULATED by gpulease)")
        sys.exit(0)
    if words[:1] != ["serve"]:
        print(f"usage: {engine} [-h] [-v] {{serve}} ...\n{engine}: error: argument subparser: only `serve` is simulated", file=sys.stderr)
        sys.exit(2)
    settings = Settings(engine, words[1:])
    selector = FineSelector() if hasattr(selectors, "EpollSelector") else selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(Server(settings).serve())
    sys.stdout.flush()
    os._exit(code)
