"""Every failure that is known, in the words of its log, and what is said about it. Texts follow the documented messages."""

from __future__ import annotations

import pytest

from provisioner.runtimes import get
from provisioner.runtimes.diagnose import SGLANG_FAILURES, VLLM_FAILURES

PREFIX = "(EngineCore_DP0 pid=4242) ERROR 11-21 14:02:10 [core.py:900] "
ENGINE = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}"

VLLM = {
    "one request does not fit": (
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (3.62 GiB). Based on the available memory, "
        "the estimated maximum model length is 29648. Try increasing "
        "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
        "needs 16.00 GiB of KV cache; 3.62 GiB are left",
        "max-model-len: 29648",
    ),
    "one request does not fit (older)": (
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored "
        "in KV cache (6048). Try increasing",
        "length is 131072 tokens; the KV cache holds 6048",
        "max-model-len: 6048",
    ),
    "no room for a cache": (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "leave no GPU memory",
        "max-num-seqs",
    ),
    "GPU memory is taken": (
        "ValueError: Free memory on device cuda:0 (3.2/22.03 GiB) on startup is less than desired GPU memory utilization "
        "(0.92, 20.27 GiB). Decrease",
        "3.2 of 22.03 GiB GPU memory are free; the server wants 20.27 GiB (0.92 of all)",
        "nvidia-smi",
    ),
    "memory moved while measuring": (
        "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 21.0 GiB.",
        "gave back",
        "start again",
    ),
    "sampler warm-up": (
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs`",
        "for 1024 sequences",
        "max-num-seqs lower",
    ),
    "weights do not fit": (
        "ValueError: Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights",
        "weights do not fit",
        "makes no room",
    ),
    "no bfloat16": (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
        "compute capability 7.5. You can use",
        "compute capability 7.5",
        "dtype: half",
    ),
    "length beyond the model": (
        "User-specified max_model_len (40960) is greater than the derived max_model_len "
        "(max_position_embeddings=32768 or model_max_length=None in",
        "is 40960, more than the model was made for (32768)",
        "max-model-len: 32768",
    ),
    "heads and GPUs": (
        "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).",
        "40 attention heads",
        "a divisor of 40",
    ),
    "architecture": (
        "ValueError: Model architectures ['Qwen5ForCausalLM'] are not supported for now. Supported",
        "Qwen5ForCausalLM",
        "newer runtime.version",
    ),
    "no weights": ("RuntimeError: Cannot find any model weights with `Qwen/Qwen3-8B-GGUF`", "no weights", "safetensors"),
    "unknown flag": ("vllm: error: unrecognized arguments: --swap-space=4", "--swap-space=4", "runtime.flags"),
}
BOTH = {
    "driver too old": (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver",
        "it offers CUDA 12.8",
        "newer driver",
    ),
    "image newer than driver": (
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update",
        "needs CUDA 13.0",
        "newer driver",
    ),
    "licence not accepted": (
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url",
        "not accepted",
        "accept the licence",
    ),
    "no token": ("huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url", "no valid token", "HF_TOKEN"),
    "gated": ("OSError: You are trying to access a gated repo. Make sure to have access to it at", "gated", "HF_TOKEN"),
    "no such model": (
        "OSError: meta-llama/Llama-3.2-8B-Instruct is not a local folder and is not a valid model identifier listed on",
        "no such model",
        "model.id",
    ),
    "no such revision": ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", "no such revision", "model.revision"),
    "tokenizer": ("OSError: Can't load tokenizer for 'org/model'. If you were trying to load it", "no tokenizer", "tokenizer"),
    "own code": (
        "ValueError: The repository contains custom code. Please pass the argument or setting `trust_remote_code=True`",
        "Python code",
        "MODEL@REVISION",
    ),
    "port busy": ("OSError: [Errno 98] Address already in use", "port was taken", "run again"),
    "disk full": ("OSError: [Errno 28] No space left on device", "disk is full", "needs.disk_gib"),
    "no compiler headers": ("main.c:5:10: fatal error: Python.h: No such file or directory", "headers", "python3-dev"),
    "no compiler": ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable", "no C compiler", "gcc"),
    "a library is missing": ("ModuleNotFoundError: No module named 'flashinfer'", "lacks flashinfer", "install again"),
    "GPU not seen": ("RuntimeError: No CUDA GPUs are available", "sees no GPU", "nvidia-smi"),
    "GPU memory": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB", "ran out", "max-model-len"),
    "killed for memory": ("Killed", "machine's own memory", "more memory"),
    "hub not reached": (
        "requests.exceptions.ConnectionError: Max retries exceeded with url: /Qwen/Qwen3-0.6B",
        "could not be reached",
        "run again",
    ),
}
SGLANG = {
    "weights leave no memory": (
        "RuntimeError: Loaded weights leave no GPU memory for the KV cache. Please raise --mem-fraction-static above 0.93.",
        "leave no GPU memory",
        "above 0.93",
    ),
    "weights leave no memory (no figure)": (
        "RuntimeError: Loaded weights leave no GPU memory for the KV cache.",
        "leave no",
        "mem-fraction-static higher",
    ),
    "not enough memory": (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. self.server_args.mem_fraction_static=0.55",
        "at mem-fraction-static 0.55",
        "mem-fraction-static higher",
    ),
    "unknown flag": ("sglang: error: unrecognized arguments: --max-model-len=1", "--max-model-len=1", "runtime.flags"),
}


VLLM_LOG = (
    "(EngineCore_DP0 pid=7) INFO Model loading took 14.99 GiB memory and 16.7 seconds\n"
    "(EngineCore_DP0 pid=7) INFO Available KV cache memory: 3.62 GiB\n"
    "(EngineCore_DP0 pid=7) INFO GPU KV cache size: 29,648 tokens, Maximum concurrency for 8,192 tokens per request: 3.62x\n"
    "(EngineCore_DP0 pid=7) INFO Graph capturing finished in 12 secs, took 0.23 GiB\n"
)
SGLANG_LOG = (
    "[TP0] Load weight end. elapsed=5.1 s, type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=6.80 GB, mem usage=14.99 GB.\n"
    "[TP0] Memory pool end. avail mem=2.10 GB\n"
    "[TP0] max_total_num_tokens=36740, chunked_prefill_size=2048, max_prefill_tokens=16384, max_running_requests=64, context_len=8192\n"
)


@pytest.mark.parametrize(("engine", "name"), [("vllm", n) for n in {**VLLM, **BOTH}] + [("sglang", n) for n in {**SGLANG, **BOTH}])
def test_a_known_failure_is_named_with_its_numbers_and_its_line(engine: str, name: str) -> None:
    text, what, advice = {**BOTH, **(VLLM if engine == "vllm" else SGLANG)}[name]
    line = text if name == "killed for memory" else PREFIX + text
    log = f"INFO starting\n{line}\nTraceback (most recent call last):\n{ENGINE}\n"
    found = get(engine).diagnose(log)
    assert found is not None
    assert what in found.what and advice in found.next
    assert found.why == line[:399] + ("…" if len(line) > 400 else line[399:])


def test_every_row_of_the_tables_has_a_text_here() -> None:
    assert {failure.name for failure in VLLM_FAILURES} == {*VLLM, *BOTH, "engine"}
    assert {failure.name for failure in SGLANG_FAILURES} == {*SGLANG, *BOTH}


def test_the_generic_ending_is_traced_to_the_first_error_above_it() -> None:
    log = f"INFO ok\n{PREFIX}EngineCore failed to start.\n{PREFIX}KeyError: 'layers.0.mlp.odd'\n{PREFIX}ValueError: second\n{ENGINE}\n"
    found = get("vllm").diagnose(log)
    assert found is not None and found.what == "the engine did not start"
    assert found.why.endswith("KeyError: 'layers.0.mlp.odd'")


def test_the_particular_failure_wins_over_the_generic_memory_error() -> None:
    log = "torch.OutOfMemoryError: CUDA out of memory.\n" + VLLM["sampler warm-up"][0] + "\n" + ENGINE
    found = get("vllm").diagnose(log)
    assert found is not None and "sampler" in found.what


def test_a_number_that_the_message_leaves_out_is_not_made_up() -> None:
    found = get("vllm").diagnose("ValueError: CUDA out of memory occurred when warming up sampler")
    assert found is not None and "for that many sequences" in found.what
    cut = get("vllm").diagnose(VLLM["one request does not fit"][0].split("Based")[0])
    assert cut is not None and "set max-model-len: what the log names" in cut.next


@pytest.mark.parametrize("log", ["", "INFO all is well\nApplication startup complete.\n", "\x00" * 100])
def test_an_unknown_log_gives_no_diagnosis(log: str) -> None:
    assert get("vllm").diagnose(log) is None and get("sglang").diagnose(log) is None


def test_a_hostile_log_reaches_nobodys_terminal() -> None:
    found = get("vllm").diagnose("\x1b]0;x\x07\x1b[2JModel architectures ['\x1b[31m\u202eEvil{0}{x}'] are not supported for now\r\n")
    assert found is not None
    assert not any(code in found.what + found.why + found.next for code in "\x1b\x07\u202e\n\r")


def test_a_huge_log_is_searched_in_time() -> None:
    import time

    begun = time.process_time()
    get("vllm").diagnose("To serve at least one request (1 GiB KV cache is needed " * 9000)
    assert time.process_time() - begun < 2


def test_vllms_figures_are_read_in_whole_units() -> None:
    assert get("vllm").figures(VLLM_LOG) == {
        "weights_mib": 15349,
        "load_ms": 16700,
        "kv_cache_mib": 3706,
        "kv_cache_tokens": 29648,
        "model_len_tokens": 8192,
        "concurrency_hundredths": 362,
        "graph_ms": 12000,
        "graph_mib": 235,
    }


def test_a_build_for_the_cpu_names_its_cache_otherwise() -> None:
    log = (  # vLLM 0.32.0+cpu, as it wrote it
        "(Worker pid=12008) INFO 11-21 10:17:00 [cpu_worker.py:260] Explicitly set (1.0/9.34) GiB for KV cache on node 0.\n"
        "(EngineCore pid=11957) INFO 11-21 10:17:00 [kv_cache_utils.py:2327] CPU KV cache size: 2,097,152 tokens, "
        "Maximum concurrency for 4,096 tokens per request: 512.00x\n"
    )
    assert get("vllm").figures(log) == {"kv_cache_tokens": 2097152, "model_len_tokens": 4096, "concurrency_hundredths": 51200}


def test_tokens_are_added_over_engines_and_not_over_ranks() -> None:
    line = "(EngineCore_DP{} pid=7) (Worker_TP{} pid=8) INFO GPU KV cache size: 1,000 tokens\n"
    assert get("vllm").figures(line.format(0, 0) + line.format(0, 1))["kv_cache_tokens"] == 1000
    assert get("vllm").figures(line.format(0, 0) + line.format(1, 0))["kv_cache_tokens"] == 2000


def test_the_two_line_form_and_a_negative_cache_are_read() -> None:
    log = (
        "Available KV cache memory: -1.44 GiB\nAvailable KV cache memory: -1.40 GiB\nGPU KV cache size: 10 tokens\n"
        "Maximum concurrency for 5 tokens per request: 2.00x\n"
    )
    assert get("vllm").figures(log) == {"kv_cache_mib": -1474, "kv_cache_tokens": 10, "model_len_tokens": 5, "concurrency_hundredths": 200}


def test_sglangs_figures_are_read_from_either_form() -> None:
    assert get("sglang").figures(SGLANG_LOG) == {
        "weights_mib": 15349,
        "free_mib": 2150,
        "kv_cache_tokens": 36740,
        "max_requests": 64,
        "model_len_tokens": 8192,
    }
    older = "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1000, K size: 1.50 GB, V size: 1.50 GB\n"
    assert get("sglang").figures(older) == {"kv_cache_tokens": 1000, "kv_cache_mib": 3072}


def test_a_log_that_says_nothing_gives_no_figures() -> None:
    assert get("vllm").figures("hello") == {} and get("sglang").figures("") == {}


@pytest.mark.parametrize("amount", ["3..62", "1.2.3", ".", "1" * 5000, "\u0663", "1e9", "NaN"])
def test_an_amount_that_is_none_is_a_figure_that_is_not_there(amount: str) -> None:
    vllm = VLLM_LOG.replace("14.99", amount).replace("3.62 GiB", f"{amount} GiB").replace("29,648", amount)
    assert get("vllm").figures(vllm).keys() == {"model_len_tokens", "concurrency_hundredths", "graph_ms", "graph_mib"}
    sglang = SGLANG_LOG.replace("usage=14.99", f"usage={amount}").replace("36740", amount).replace("=64", f"={amount}")
    assert get("sglang").figures(sglang).keys() == {"free_mib", "model_len_tokens"}
