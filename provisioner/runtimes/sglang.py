"""SGLang: its command line, its file of settings, and its log.

No environment variable carries SGLang's key, and a flag would show it in `ps`; but the parser takes --config, a YAML
file whose entries become flags inside the process. So the key goes into `server.yaml`, 0600, beside the log. SGLang
then prints all its settings at start, the key among them: the start script takes secrets out of the log on its way
to the disk (server.py).

Torch's store listens on every address with every version seen so far; see `opens_store`. This file must not know
how a server is started, nor where.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

from provisioner.runtimes.amounts import COUNT, NUMBER, mib, whole
from provisioner.runtimes.arguments import default_seqs, render, trusted
from provisioner.runtimes.diagnose import SGLANG_FAILURES, search
from provisioner.runtimes.spec import Diagnosis, Runtime, ServeSpec, environment
from provisioner.secret import Secret

RESERVED = {
    "--host": "the server listens on 127.0.0.1 only; it is reached through the tunnel",
    "--port": "a free port is chosen on the machine",
    "--api-key": "a key is made for each run and handed over by file; on a command line every user would see it",
    "--admin-api-key": "a key is made for each run and handed over by file; on a command line every user would see it",
    "--served-model-name": "it is model.name in the profile",
    "--revision": "it is model.revision in the profile",
    "--model": "it is model.id in the profile",
    "--model-path": "it is model.id in the profile",
    "--config": "it is used to hand over the key, and one file is all that SGLang reads",
    "--enable-metrics": "it is always set",
    "--fastapi-root-path": "the paths are part of how the server is reached",
    "--grpc-mode": "only the HTTP API is checked for exposure and used",
    "--smg-grpc-mode": "only the HTTP API is checked for exposure and used",
    "--grpc-port": "only the HTTP API is checked for exposure and used",
    "--sidecar": "only the HTTP API is checked for exposure and used",
    "--ssl-certfile": "the tunnel encrypts; the server speaks plain HTTP on the loopback address",
    "--ssl-keyfile": "the tunnel encrypts; the server speaks plain HTTP on the loopback address",
    "--ssl-keyfile-password": "the tunnel encrypts; the server speaks plain HTTP on the loopback address",
    "--nnodes": "a run rents one machine",
    "--node-rank": "a run rents one machine",
    "--dist-init-addr": "a run rents one machine",
    "--nccl-init-addr": "a run rents one machine",
}
_SPREAD = (
    "tp-size",
    "tensor-parallel-size",
    "pp-size",
    "pipeline-parallel-size",
    "dp-size",
    "data-parallel-size",
    "ep-size",
    "ep",
    "expert-parallel-size",
)


def argv(spec: ServeSpec) -> tuple[str, ...]:
    flags = trusted(spec)
    given = {name.lstrip("-").replace("_", "-") for name in flags}
    words = ["serve", "--model-path", spec.model]
    if spec.revision is not None:
        words.append(f"--revision={spec.revision}")
    words += ["--host=127.0.0.1", f"--port={spec.port}", "--served-model-name", spec.name, "--enable-metrics"]
    if spec.api_key:
        # Two words: SGLang looks for "--config" by itself, before its parser runs. The start script stands in the folder.
        words += ["--config", "server.yaml"]
    if "max-running-requests" not in given:
        words.append(f"--max-running-requests={default_seqs(spec.concurrency)}")
    if spec.gpus > 1 and not given & set(_SPREAD):
        words.append(f"--tp-size={spec.gpus}")
    return (*words, *render("sglang", flags, RESERVED))


def env(spec: ServeSpec) -> dict[str, str | Secret]:
    return environment({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}, spec)


def config(spec: ServeSpec) -> Secret:
    # JSON's quoting is YAML's, and the key's form leaves nothing to quote anyway.
    return Secret(f"api-key: {json.dumps(spec.api_key.reveal())}\n" if spec.api_key else "")


def figures(log: str) -> dict[str, int]:
    """Whole numbers with their units in their names. SGLang's "GB" here are GiB; ranks repeat, the scarcest decides."""
    out: dict[str, int] = {}
    if found := re.findall(rf"Load weight end\..*?\bmem usage=({NUMBER}) GB", log):
        out["weights_mib"] = max(mib(gb) for gb in found)
    if found := re.findall(rf"Memory pool end\. avail mem=({NUMBER}) GB", log):
        out["free_mib"] = min(mib(gb) for gb in found)
    if found := re.findall(rf"\bmax_total_num_tokens=({COUNT})", log) or re.findall(rf"KV Cache is allocated\..*?#tokens: ({COUNT})", log):
        out["kv_cache_tokens"] = min(whole(tokens) for tokens in found)
    if found := re.findall(rf"K size: ({NUMBER}) GB, V size: ({NUMBER}) GB", log):
        out["kv_cache_mib"] = min(mib(str(Decimal(k) + Decimal(v))) for k, v in found)
    for name, unit in (("max_running_requests", "max_requests"), ("context_len", "model_len_tokens")):
        if found := re.findall(rf"\b{name}=({COUNT})", log):
            out[unit] = whole(found[-1])
    return out


def diagnose(log: str) -> Diagnosis | None:
    return search(log, SGLANG_FAILURES)


SGLANG = Runtime(
    name="sglang",
    argv=argv,
    env=env,
    config=config,
    figures=figures,
    diagnose=diagnose,
    landmarks=(
        (r"server_args=", "SGLang has read its flags"),
        (r"Load weight begin", "loading weights"),
        (r"Load weight end", "weights are loaded"),
        (r"Memory pool end", "the KV cache is laid out"),
        (r"Capture .*graph end", "CUDA graphs are captured"),
        (r"Application startup complete", "the API has started"),
        (r"fired up and ready to roll", "the server says that it is ready"),
    ),
    opens_store=lambda spec: True,
)
