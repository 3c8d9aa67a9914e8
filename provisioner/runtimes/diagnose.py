"""Why an inference server did not start: its log, held against the failures that are known.

Each row is a pattern from the server's own message, what it means, and what to change; numbers that the message
carries ("the estimated maximum model length is 6048") go into the advice. Rows stand from the particular to the
general, because one failure prints several of them: "Engine core initialization failed" ends almost every bad start
and explains none. `why` is the log's own line, cleaned, so that the reader can check us.

The advice may differ from the message's: lowering --gpu-memory-utilization, which vLLM itself suggests when weights
do not fit, takes memory away. Pure; must not know how the log was fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.runtimes.spec import Diagnosis


@dataclass(frozen=True)
class Failure:
    """`what` and `next` are formatted with the pattern's groups, by name."""

    name: str
    pattern: str
    what: str
    next: str


_WEIGHTS = "take a smaller or quantized model, a GPU with more memory, or more GPUs"
_VLLM = (
    Failure(
        "one request does not fit",
        r"To serve at least one request(?s:.){0,200}?\((?P<need>[\d.]+) GiB KV cache is needed"
        r"(?s:.){0,200}?available KV cache memory \((?P<have>-?[\d.]+) GiB\)"
        r"(?:(?s:.){0,300}?estimated maximum model length is (?P<length>[\d,]+))?",
        "one request of full length needs {need} GiB of KV cache; {have} GiB are left",
        "set max-model-len: {length} or less in runtime.flags",
    ),
    Failure(
        "one request does not fit (older)",
        r"max seq len \((?P<want>\d+)\) is larger than the maximum number of tokens(?s:.){0,120}?KV cache \((?P<length>\d+)\)",
        "the model's length is {want} tokens; the KV cache holds {length}",
        "set max-model-len: {length} or less in runtime.flags",
    ),
    Failure(
        "no room for a cache",
        r"No available memory for the cache blocks",
        "the weights and the warm-up leave no GPU memory for the KV cache",
        "lower max-num-seqs, raise gpu-memory-utilization (default 0.92), or " + _WEIGHTS,
    ),
    Failure(
        "GPU memory is taken",
        r"Free memory on device \S+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)"
        r"(?s:.){0,120}?less than desired GPU memory utilization \((?P<share>[\d.]+), (?P<want>[\d.]+) GiB\)",
        "{free} of {total} GiB GPU memory are free; the server wants {want} GiB ({share} of all)",
        "set gpu-memory-utilization lower; on a machine of your own, end what else is on the GPU (nvidia-smi; often a leaked EngineCore)",
    ),
    Failure(
        "memory moved while measuring",
        r"Error in memory profiling\. Initial free memory",
        "another process gave back GPU memory while the server measured it",
        "start again on a machine where nothing else uses the GPU",
    ),
    Failure(
        "sampler warm-up",
        r"CUDA out of memory occurred when warming up sampler(?: with (?P<seqs>\d+) dummy requests)?",
        "warming up the sampler for {seqs} sequences at once does not fit into GPU memory",
        "set max-num-seqs lower in runtime.flags (twice the concurrency is enough)",
    ),
    Failure(
        "weights do not fit",
        r"Failed to load model - not enough GPU memory",
        "the weights do not fit into GPU memory",
        _WEIGHTS + "; a lower gpu-memory-utilization makes no room",
    ),
    Failure(
        "no bfloat16",
        r"Bfloat16 is only supported on GPUs with compute capability(?s:.){0,160}?has compute capability (?P<have>[\d.]+)",
        "this GPU (compute capability {have}) has no bfloat16",
        "set dtype: half in runtime.flags",
    ),
    Failure(
        "length beyond the model",
        r"max_model_len \((?P<want>\d+)\) is greater than the derived(?:(?s:.){0,160}?=(?P<length>\d+))?",
        "max-model-len is {want}, more than the model was made for ({length})",
        "set max-model-len: {length} or less in runtime.flags",
    ),
    Failure(
        "heads and GPUs",
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
        "{heads} attention heads cannot be divided over {size} GPUs",
        "set tensor-parallel-size to a divisor of {heads}",
    ),
    Failure(
        "architecture",
        r"Model architectures \[(?P<names>[^\]]{1,200})\] are not supported for now",
        "this release does not know the model's architecture ({names})",
        "take a newer runtime.version, or another runtime",
    ),
    Failure(
        "no weights",
        r"Cannot find any model weights with",
        "the repository holds no weights of a kind that the server loads (only GGUF, or incomplete)",
        "take a repository with safetensors, or set load-format",
    ),
    Failure(
        "unknown flag",
        r"error: unrecognized arguments: (?P<flags>.{1,200})",
        "this release does not know {flags}",
        "take the flag out of runtime.flags, or set runtime.version to a release that has it",
    ),
)
_BOTH = (
    Failure(
        "driver too old",
        r"driver on your system is too old \(found version (?P<found>\d+)\)",
        "the NVIDIA driver is too old for this build (it offers CUDA {cuda})",
        "take a machine image with a newer driver, or a build of the server for CUDA 12",
    ),
    Failure(
        "image newer than driver",
        r"unsatisfied condition: cuda ?>= ?(?P<need>[\d.]+)",
        "the container image needs CUDA {need}; the driver is older",
        "take a machine image with a newer driver, or an older container image",
    ),
    Failure(
        "licence not accepted",
        r"GatedRepoError: 403|403 Client Error(?s:.){0,300}?gated repo",
        "the model is gated, and this token's account has not accepted its licence",
        "accept the licence on the model's page with that account",
    ),
    Failure(
        "no token",
        r"GatedRepoError: 401|401 Client Error(?s:.){0,300}?gated repo",
        "the model is gated, and no valid token was given",
        "set HF_TOKEN to a token of an account that has accepted the model's licence",
    ),
    Failure(
        "gated",
        r"Cannot access gated repo for url|You are trying to access a gated repo",
        "the model is gated: a token is missing, or its account has not accepted the licence",
        "accept the licence on the model's page, and set HF_TOKEN",
    ),
    Failure(
        "no such model",
        r"is not a valid model identifier|RepositoryNotFoundError|Repository Not Found for url",
        "there is no such model, or it is private",
        "correct model.id, or set HF_TOKEN for a private model",
    ),
    Failure(
        "no such revision",
        r"RevisionNotFoundError|is not a valid git identifier",
        "the model has no such revision",
        "correct model.revision",
    ),
    Failure(
        "tokenizer",
        r"Can't load tokenizer for",
        "the repository has no tokenizer",
        "set tokenizer to the base model's repository in runtime.flags",
    ),
    Failure(
        "own code",
        r"[Ss]etting `?trust_remote_code=True`?|set the option `?trust_remote_code=True",
        "the model comes with Python code of its own, which is not run without consent",
        "read that code, then set trust-remote-code to MODEL@REVISION in runtime.flags",
    ),
    Failure(
        "port busy",
        r"\[Errno 98\]|[Aa]ddress already in use",
        "the port was taken between choosing and using it",
        "run again; another port is chosen",
    ),
    Failure(
        "disk full",
        r"No space left on device|Disk quota exceeded|Not enough free disk space",
        "the disk is full",
        "set needs.disk_gib higher: the checkpoint, the server's libraries, and a fifth more",
    ),
    Failure(
        "no compiler headers",
        r"Python\.h: No such file",
        "Python's headers are not installed, and the server compiles kernels",
        "an image that has python3-dev (launch.image); on a machine of your own, install it",
    ),
    Failure(
        "no compiler",
        r"Failed to find C compiler",
        "there is no C compiler, and the server compiles kernels",
        "an image that has gcc (launch.image); on a machine of your own, install it",
    ),
    Failure(
        "a library is missing",
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]{1,80})'",
        "the server's installation lacks {module}",
        "another runtime.version; on a machine of your own, remove ~/.gpulease/venv-* and install again",
    ),
    Failure(
        "GPU not seen",
        r"No CUDA GPUs are available|Failed to infer device type|Found no NVIDIA driver",
        "the server sees no GPU",
        "another image or type (launch.image, needs.types); on a machine of your own: nvidia-smi",
    ),
    Failure(
        "GPU memory",
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory",
        "GPU memory ran out",
        "lower max-num-seqs and max-model-len, or " + _WEIGHTS,
    ),
    Failure(
        "killed for memory",
        r"oom-kill|Out of memory: Killed process|^Killed$",
        "the machine's own memory ran out",
        "take a type with more memory",
    ),
    Failure(
        "hub not reached",
        r"LocalEntryNotFoundError|Max retries exceeded with url|offline mode is enabled",
        "the model hub could not be reached",
        "run again",
    ),
)
_LAST = Failure("engine", r"Engine core initialization failed", "the engine did not start", "read the log above this line")
_SGLANG = (
    Failure(
        "weights leave no memory",
        r"Loaded weights leave no GPU memory(?s:.){0,300}?above (?P<fraction>0?\.\d+|1(?:\.0+)?)",
        "the weights leave no GPU memory for the KV cache",
        "set mem-fraction-static above {fraction} in runtime.flags, or " + _WEIGHTS,
    ),
    Failure(
        "weights leave no memory (no figure)",
        r"Loaded weights leave no GPU memory",
        "the weights leave no GPU memory for the KV cache",
        "set mem-fraction-static higher in runtime.flags, or " + _WEIGHTS,
    ),
    Failure(
        "not enough memory",
        r"Not enough memory(?s:.){0,200}?--mem-fraction-static(?:(?s:.){0,80}?mem_fraction_static=(?P<fraction>\d*\.\d+))?",
        "GPU memory is not enough for the KV cache at mem-fraction-static {fraction}",
        "set mem-fraction-static higher in runtime.flags, or " + _WEIGHTS,
    ),
    Failure(
        "unknown flag",
        r"error: unrecognized arguments: (?P<flags>.{1,200})",
        "this release does not know {flags}",
        "take the flag out of runtime.flags",
    ),
)
VLLM_FAILURES = (*_VLLM, *_BOTH, _LAST)
SGLANG_FAILURES = (*_SGLANG, *_BOTH)


def search(log: str, failures: Sequence[Failure]) -> Diagnosis | None:
    """The first known failure, by the order of the table and not of the log; None when none is known."""
    for failure in failures:
        if found := re.search(failure.pattern, log, re.MULTILINE):
            if failure is _LAST:
                return _engine(log, found)
            return _diagnosis(failure, found, _line(log, found.start()))
    return None


def _diagnosis(failure: Failure, found: re.Match[str], why: str) -> Diagnosis:
    groups = {name: _shown(text) for name, text in found.groupdict(default="").items()}
    # 12080 is how CUDA writes 12.8.
    groups["cuda"] = f"{int(groups['found']) // 1000}.{int(groups['found']) % 1000 // 10}" if groups.get("found", "").isdigit() else ""
    missing = any(not text and "{" + name + "}" in failure.what + failure.next for name, text in groups.items())
    what, advice = (_filled(text, groups) if missing else text.format(**groups) for text in (failure.what, failure.next))
    return Diagnosis(what, why, advice)


_UNSAID = {"length": "what the log names", "seqs": "that many", "fraction": "as it is set"}


def _filled(text: str, groups: dict[str, str]) -> str:
    return text.format(**{name: value or _UNSAID.get(name, "a number not given") for name, value in groups.items()})


def _engine(log: str, found: re.Match[str]) -> Diagnosis:
    """The generic ending: what matters is the first error above it, which is nearer the cause than the last."""
    above = [line for line in log[: found.start()].splitlines() if re.search(r"\bERROR\b|Error: ", line)]
    telling = next((line for line in above if re.search(r"\w(Error|Exception): ", line)), above[0] if above else "")
    return Diagnosis(
        _LAST.what, _shown(telling or _line(log, found.start())), "look the error up in the runtime's issues, with its version"
    )


def _line(log: str, at: int) -> str:
    end = log.find("\n", at)
    return _shown(log[log.rfind("\n", 0, at) + 1 : end if end >= 0 else None])


def _shown(text: str) -> str:
    from provisioner.clean import clean

    return clean(text.strip(), limit=400)
