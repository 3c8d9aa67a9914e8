"""vLLM: its command line, environment and log.

The server listens on the loopback address only, because its key does not protect it: outside /v1 and a few other
prefixes every path answers without one. The key goes in by VLLM_API_KEY, never by a flag, which `ps` would show.
--max-num-seqs is always passed: the default is 1024 on large cards, and warming up the sampler for that many costs
several GiB that the KV cache could use.

Figures are read from the log as written by 0.2x to 0.33; see `figures` for what repeats. This file must not know
how a server is started, nor where.
"""

from __future__ import annotations

import re
from decimal import Decimal

from provisioner.runtimes.amounts import COUNT, NUMBER, mib, milli, whole
from provisioner.runtimes.arguments import default_seqs, render, trusted
from provisioner.runtimes.diagnose import VLLM_FAILURES, search
from provisioner.runtimes.spec import Diagnosis, Runtime, ServeSpec, environment
from provisioner.secret import Secret

RESERVED = {
    "--host": "the server listens on 127.0.0.1 only; it is reached through the tunnel",
    "--port": "a free port is chosen on the machine",
    "--uds": "the server listens on a loopback port",
    "--api-key": "a key is made for each run and handed over by file; on a command line every user would see it",
    "--hf-token": "the token is handed over by file; on a command line every user would see it",
    "--served-model-name": "it is model.name in the profile",
    "--revision": "it is model.revision in the profile",
    "--model": "it is model.id in the profile",
    "--config": "a second file of settings could override the ones that keep the server private",
    "--root-path": "the paths are part of how the server is reached",
    "--headless": "a server without its API cannot be evaluated",
    "--grpc": "only the HTTP API is checked for exposure and used",
    "--grpc-port": "only the HTTP API is checked for exposure and used",
    "--ssl-certfile": "the tunnel encrypts; the server speaks plain HTTP on the loopback address",
    "--ssl-keyfile": "the tunnel encrypts; the server speaks plain HTTP on the loopback address",
    "--enable-fastapi-docs": "the documentation pages answer without the key",
    "--disable-fastapi-docs": "it is always set: the documentation pages answer without the key",
    "--nnodes": "a run rents one machine",
    "--node-rank": "a run rents one machine",
    "--master-addr": "a run rents one machine",
    "--data-parallel-address": "a run rents one machine",
}
_SPREAD = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "device-ids", "decode-context-parallel-size")


def argv(spec: ServeSpec) -> tuple[str, ...]:
    flags = trusted(spec)
    given = {name.lstrip("-").replace("_", "-") for name in flags}
    words = ["serve", spec.model]
    if spec.revision is not None:
        words.append(f"--revision={spec.revision}")
    words += ["--host=127.0.0.1", f"--port={spec.port}", "--served-model-name", spec.name, "--disable-fastapi-docs"]
    if "max-num-seqs" not in given:
        words.append(f"--max-num-seqs={default_seqs(spec.concurrency)}")
    if spec.gpus > 1 and not given & set(_SPREAD):
        words.append(f"--tensor-parallel-size={spec.gpus}")
    return (*words, *render("vllm", flags, RESERVED))


def env(spec: ServeSpec) -> dict[str, str | Secret]:
    # The three addresses keep what vLLM opens besides its API on the loopback address too: a run is one machine.
    ours = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return environment({**ours, **({"VLLM_API_KEY": spec.api_key} if spec.api_key else {})}, spec)


def opens_store(spec: ServeSpec) -> bool:
    """Before 0.28, and with data parallelism, torch's store listens on every address, whatever --host says."""
    version = tuple(int(part) for part in re.findall(r"\d+", spec.version)[:2])
    return version < (0, 28) or any("data-parallel" in name.replace("_", "-") for name in spec.flags)


def figures(log: str) -> dict[str, int]:
    """Whole numbers with their units in their names; what the log does not say is not there.

    Lines repeat per rank. Ranks of one engine hold the same tokens, so tokens are added over data-parallel engines
    and never over ranks; of the GiB figures the one that decides is kept: the least for the cache, the most else.
    """
    out: dict[str, int] = {}
    if found := re.findall(rf"Model loading took ({NUMBER}) GiB(?: memory)? and ({NUMBER}) seconds", log):
        out["weights_mib"] = max(mib(gib) for gib, _ in found)
        out["load_ms"] = max(milli(seconds) for _, seconds in found)
    if found_gib := re.findall(rf"Available KV cache memory: (-?{NUMBER}) GiB", log):
        out["kv_cache_mib"] = min(mib(gib) for gib in found_gib)
    tokens: dict[str, int] = {}
    for line in log.splitlines():
        if size := re.search(rf"[CG]PU KV cache size: ({COUNT}) tokens", line):
            engine = re.search(r"EngineCore_(?:DP)?([0-9]{1,6})", line)
            tokens[engine[1] if engine else "0"] = whole(size[1])
        if reach := re.search(rf"Maximum concurrency for ({COUNT}) tokens per request: ({NUMBER})x", line):
            out["model_len_tokens"] = whole(reach[1])
            out["concurrency_hundredths"] = int(Decimal(reach[2]) * 100)
    if tokens:
        out["kv_cache_tokens"] = sum(tokens.values())
    if found := re.findall(rf"Graph capturing finished in ({NUMBER}) secs?, took (-?{NUMBER}) GiB", log):
        out["graph_ms"] = max(milli(seconds) for seconds, _ in found)
        out["graph_mib"] = max(mib(gib) for _, gib in found)
    return out


def diagnose(log: str) -> Diagnosis | None:
    return search(log, VLLM_FAILURES)


VLLM = Runtime(
    name="vllm",
    argv=argv,
    env=env,
    config=lambda spec: Secret(""),
    figures=figures,
    diagnose=diagnose,
    landmarks=(
        (r"non-default args:", "vLLM has read its flags"),
        (r"Starting to load model", "loading weights"),
        (r"Model loading took", "weights are loaded"),
        (r"torch\.compile takes", "compiled"),
        (r"[CG]PU KV cache size:", "the KV cache is laid out"),
        (r"Graph capturing finished", "CUDA graphs are captured"),
        (r"Application startup complete", "the API has started"),
    ),
    opens_store=opens_store,
)
