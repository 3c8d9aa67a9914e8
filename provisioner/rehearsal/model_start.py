"""How a simulated server starts: what it takes of the boards, what it prints, and how it fails.

The arithmetic is a rough guess from the model's name ("8B" at two bytes a parameter) and the boards' memory; it is
there so that a profile that asks for too much fails where the real server fails, with the real server's words
(vLLM 0.33, SGLang 0.5.23), which the playbooks match. The first line says SIMULATED. Stdlib only.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OVERHEAD_GIB = 1.2  # activations, CUDA context, graphs
KV_BYTES_PER_TOKEN = 131_072  # 32 layers x 8 heads x 128 x 2 x 2
MODEL_MAX_LEN = 40_960
BYTES = ((r"awq|gptq|int4|4bit|w4a16|nvfp4", 0.56), (r"fp8|int8|8bit|w8a8", 1.0))


class StartFailed(Exception):
    """The server would not start; the text is its last words."""


@dataclass(frozen=True)
class Sizes:
    weights_gib: float
    kv_gib: float
    kv_tokens: int
    used_mib: tuple[int, ...]  # per board of the machine
    max_len: int


def sizes(
    model: str,
    boards: list[dict[str, Any]],
    *,
    fraction: float,
    tensor_parallel: int,
    max_len: int,
    quantization: str = "",
    sglang: bool = False,
) -> Sizes:
    if not boards:
        raise StartFailed(
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on "
            "verbose logging"
        )
    if tensor_parallel > len(boards):
        raise StartFailed(
            f"ValueError: World size ({tensor_parallel}) is larger than the number of available GPUs ({len(boards)}) in this node. "
            "If this is intentional and you are using: - ray, set '--distributed-executor-backend ray'."
        )
    m = re.search(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", model, re.I)
    billions = 1.0 if m is None else float(m[1]) * (1.0 if m[2].lower() == "b" else 1e-3)
    each = next((size for words, size in BYTES if re.search(words, f"{model} {quantization}", re.I)), 2.0)
    weights = billions * 1e9 * each / 2**30 / tensor_parallel
    total = min(int(b["memory_mib"]) for b in boards[:tensor_parallel]) / 1024
    if weights > total:
        raise StartFailed(
            "torch.OutOfMemoryError: Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory "
            "for weights."
        )
    kv = total * fraction - weights - OVERHEAD_GIB
    if kv <= 0 and sglang:
        raise StartFailed(f"RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: {fraction}")
    if kv <= 0:
        raise StartFailed(
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."
        )
    tokens = int(kv * 2**30 / (KV_BYTES_PER_TOKEN / tensor_parallel)) // 16 * 16
    wanted = max_len if max_len > 0 else MODEL_MAX_LEN
    if wanted > tokens and not sglang:
        need = wanted * KV_BYTES_PER_TOKEN / tensor_parallel / 2**30
        raise StartFailed(
            f"ValueError: To serve at least one request with the models's max seq len ({wanted}), ({need:.2f} GiB KV cache is needed, "
            f"which is larger than the available KV cache memory ({kv:.2f} GiB). Based on the available memory, "
            f"the estimated maximum model length is {tokens}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` "
            "when initializing the engine."
        )
    used = int(total * fraction * 1024)
    return Sizes(weights, kv, tokens, tuple(used if n < tensor_parallel else 0 for n in range(len(boards))), wanted)


def check_board(boards: list[dict[str, Any]], dtype: str, used_by_others_mib: int, fraction: float) -> None:
    """What vLLM refuses before it loads a weight."""
    for board in boards[:1]:
        capability, total = float(board["cc"]), int(board["memory_mib"]) / 1024
        if dtype == "bfloat16" and capability < 8.0:
            raise StartFailed(
                f"ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your {board['name']} GPU "
                f"has compute capability {capability}. You can use float16 instead by explicitly setting the `dtype` flag in CLI, "
                "for example: --dtype=half."
            )
        free = total * 0.98 - used_by_others_mib / 1024
        if free < total * fraction:
            raise StartFailed(
                f"ValueError: Free memory on device cuda:0 ({free:.2f}/{total:.2f} GiB) on startup is less than desired GPU memory "
                f"utilization ({fraction}, {total * fraction:.2f} GiB). Decrease GPU memory utilization "
                "or reduce GPU memory used by other processes."
            )
        major = int(re.sub(r"\D.*", "", str(board["driver"])) or 0)
        if major and major < 550:
            raise StartFailed(
                "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by "
                "downloading and installing a new version."
            )


class Log:
    """Lines as the engine prints them, and as uvicorn does."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    def say(self, line: str, *, where: str = "core.py:1", level: str = "INFO") -> None:
        now = time.gmtime()
        if self._engine == "vllm":
            text = f"(EngineCore_DP0 pid={os.getpid()}) {level} {time.strftime('%m-%d %H:%M:%S', now)} [{where}] {line}"
        else:
            text = f"[{time.strftime('%Y-%m-%d %H:%M:%S', now)} TP0] {line}"
        print(text, flush=True)

    def uvicorn(self, line: str, level: str = "INFO") -> None:
        print(f"{level}:     {line}", file=sys.stderr, flush=True)

    def first(self, version: str) -> None:
        print(
            f"SIMULATED by gpulease: no model is loaded and no GPU is used; this is {self._engine} {version} in appearance only", flush=True
        )

    def failed(self, words: str) -> None:
        self.say("EngineCore failed to start.", where="core.py:936", level="ERROR")
        self.say(words, where="core.py:936", level="ERROR")
        print("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", file=sys.stderr, flush=True)


def narrate(log: Log, engine: str, model: str, size: Sizes, address: str) -> list[tuple[float, Callable[[], None]]]:
    """The lines of a start, each with the share of the start's time after which it comes."""
    concurrency = size.kv_tokens / size.max_len
    if engine == "sglang":
        lines = [
            (0.1, f"Load weight begin. avail mem={size.used_mib[0] / 1024:.2f} GB"),
            (
                0.5,
                f"Load weight end. type=Qwen3ForCausalLM, avail mem={size.kv_gib:.2f} GB, mem usage={size.weights_gib:.2f} GB.",
            ),
            (0.7, f"KV Cache is allocated. #tokens: {size.kv_tokens}, K size: {size.kv_gib / 2:.2f} GB, V size: {size.kv_gib / 2:.2f} GB"),
            (0.7, "Memory pool end. avail mem=1.20 GB"),
            (
                0.9,
                f"max_total_num_tokens={size.kv_tokens}, chunked_prefill_size=2048, max_running_requests=2048, context_len={size.max_len}",
            ),
        ]
        out: list[tuple[float, Callable[[], None]]] = [(at, lambda line=line: log.say(line)) for at, line in lines]  # type: ignore[misc]
        out.append((1.0, lambda: log.uvicorn("Application startup complete.")))
        out.append((1.0, lambda: log.uvicorn(f"Uvicorn running on {address} (Press CTRL+C to quit)")))
        out.append((1.0, lambda: log.say("The server is fired up and ready to roll!")))
        return out
    per = f"GPU KV cache size: {size.kv_tokens:,} tokens, Maximum concurrency for {size.max_len:,} tokens per request: {concurrency:.2f}x"
    told = [
        (0.1, f"Starting to load model {model}...", "gpu_model_runner.py:4523"),
        (0.4, f"Model loading took {size.weights_gib:.2f} GiB memory and 0.180000 seconds", "gpu_model_runner.py:4587"),
        (0.6, f"Available KV cache memory: {size.kv_gib:.2f} GiB", "gpu_worker.py:356"),
        (0.7, per, "kv_cache_utils.py:1307"),
        (0.9, "Graph capturing finished in 1 secs, took 0.38 GiB", "gpu_model_runner.py:4719"),
        (0.95, f"Starting vLLM server on {address}", "launcher.py:38"),
    ]
    out = [(at, lambda line=line, where=where: log.say(line, where=where)) for at, line, where in told]  # type: ignore[misc]
    out.append((1.0, lambda: log.uvicorn(f"Started server process [{os.getpid()}]")))
    out.append((1.0, lambda: log.uvicorn("Application startup complete.")))
    return out
