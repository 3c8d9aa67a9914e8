"""Inference servers: what each is told, how its log reads, and how one is started on a machine and stopped again.

`get("vllm")` gives a Runtime: pure functions from a ServeSpec to command line, environment and files, and from a log
to figures and a diagnosis. `server.serve` does the acting, over a Host and a playbook runner that are handed in.
"""

from __future__ import annotations

from collections.abc import Callable

from provisioner.errors import RefusedError
from provisioner.runtimes.spec import Diagnosis, Runtime, ServeSpec

__all__ = ["Diagnosis", "Runtime", "ServeSpec", "get", "names"]


def names() -> tuple[str, ...]:
    return tuple(_KNOWN)


def get(name: str) -> Runtime:
    if name not in _KNOWN:
        raise RefusedError(f"there is no runtime {name[:40]!r}", why=f"known: {', '.join(_KNOWN)}", next="set runtime.name in the profile")
    return _KNOWN[name]()


def _vllm() -> Runtime:
    from provisioner.runtimes.vllm import VLLM

    return VLLM


def _sglang() -> Runtime:
    from provisioner.runtimes.sglang import SGLANG

    return SGLANG


_KNOWN: dict[str, Callable[[], Runtime]] = {"vllm": _vllm, "sglang": _sglang}
