"""A server on a machine: installed, started, seen to answer, watched for what it exposes, and stopped again.

`serve` is a with-block around playbooks, which are handed in as `play` (this folder knows nothing of `remote`). It
yields once one real completion has come back, and not before; a server that dies on the way is noticed at the next
look and raised with the log's own reason, because every minute until the time-out is paid for. On the way out the
playbook's undo stops it, also after an error.

The key exists on the machine in three 0600 files and in no argument list: the server's environment (or its file of
settings), `api.key` for the client, and the sed script that takes it out of the log. What the server opens on other
than loopback addresses is compared with what was open before it came.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

from provisioner.errors import HostError, RunError, RuntimeFailed
from provisioner.model import Host, Json
from provisioner.runtimes.spec import Runtime, ServeSpec
from provisioner.secret import Secret

LOG_BYTES = 512 * 1024
TAIL_LINES = 15
_QUIET_S = 30.0


class Play(Protocol):
    """Run a playbook by name; leaving the block undoes it."""

    def __call__(
        self, name: str, values: Mapping[str, str], *, secrets: Mapping[str, Secret] = ..., files: Mapping[str, bytes] = ...
    ) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class Server:
    """A server that has answered. `folder` is relative to the login's home; `key_file` is what a client on the machine reads."""

    runtime: str
    version: str
    name: str
    port: int
    folder: str
    key_file: str
    ready_ms: int  # from the start of the process to its first completion
    first_ms: int  # that completion alone
    key_required: bool  # did it refuse a request without the key?
    figures: Mapping[str, int]
    exposed: tuple[str, ...] = ()  # what it opened besides its API, on addresses other machines can reach
    health: str = "/health"
    metrics: str = "/metrics"
    log_tail: str = field(default="", repr=False)


@contextmanager
def serve(
    host: Host,
    runtime: Runtime,
    spec: ServeSpec,
    *,
    lease: str,
    play: Play,
    exposed: Callable[[], Sequence[Json]],
    sleep: Callable[[float], None],
    say: Callable[[str], None] = lambda line: None,
    timeout_s: float = 1800.0,
    every_s: float = 2.0,
    answer_s: float = 120.0,
    system_packages: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Server]:
    """Install, start, wait until it answers; stop on the way out. `exposed` lists what other machines could connect to."""
    if not spec.port:
        raise ValueError("a server needs the port it shall listen on")
    folder = f".gpulease/{lease}"
    settings = {
        "lease": lease,
        "version": spec.version,
        "executable": spec.command or "",
        "system_packages": "yes" if system_packages else "no",
    }
    secrets = {
        "server_env": env_file(runtime.env(spec)),
        "server_config": runtime.config(spec),
        "server_redact": redact_script(spec),
        "api_key": spec.api_key or Secret(""),
    }
    script = {"server_start": start_script(runtime.argv(spec))}
    before = {(row["address"], row["port"]) for row in exposed()}
    with play(runtime.name, settings):
        begun = now()
        with play("serve", {"lease": lease}, secrets=secrets, files=script):
            seen = _ready(host, runtime, spec, folder, sleep, say, now, timeout_s, every_s, answer_s)
            ready_ms = int((now() - begun) * 1000)
            opened = exposure(runtime, spec, [row for row in exposed() if (row["address"], row["port"]) not in before])
            for line in opened:
                say(f"{runtime.name} also listens on {line}: torch's store, which takes no address; only a firewall keeps it private")
            text = log(host, folder, spec)
            yield Server(
                runtime=runtime.name,
                version=spec.version,
                name=spec.name,
                port=spec.port,
                folder=folder,
                key_file=f"{folder}/api.key",
                ready_ms=ready_ms,
                first_ms=seen["first_ms"],
                key_required=seen["key_required"] is True,
                figures=runtime.figures(text),
                exposed=opened,
                health=runtime.health,
                metrics=runtime.metrics,
                log_tail=_tail(text),
            )


def start_script(argv: Sequence[str]) -> bytes:
    """What runs as the server's process group. Every argument is quoted here, once; nothing is expanded on the machine."""
    words = " ".join(shlex.quote(word) for word in argv)
    return _START.replace("ARGUMENTS", words).encode()


_START = """#!/bin/sh
umask 077
cd "$(dirname "$0")" || exit 97
exec >> server.log 2>&1 < /dev/null
rm -f server.exit
echo "$$" > server.pid.part && mv server.pid.part server.pid
ulimit -S -n 65535 2>/dev/null
if ! read -r exe < executable; then echo 'no server is installed here' >&2; echo 96 > server.exit; exit 96; fi
set -a
. ./server.env
set +a
PATH="$(dirname "$exe"):/usr/local/cuda/bin:$PATH"
if [ -s cache.path ]; then
  read -r cache < cache.path
  mkdir -p "$cache/tmp"
  : "${HF_HOME:=$cache/huggingface}" "${VLLM_CACHE_ROOT:=$cache/vllm}" "${TRITON_CACHE_DIR:=$cache/triton}" "${TMPDIR:=$cache/tmp}"
  export HF_HOME VLLM_CACHE_ROOT TRITON_CACHE_DIR TMPDIR
fi
{ "$exe" ARGUMENTS; echo "$?" > server.exit; } 2>&1 | sed -u -f server.sed
"""


def env_file(env: Mapping[str, str | Secret]) -> Secret:
    """Read by the start script's shell: quoted, so that no value is ever expanded."""
    said = {name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()}
    return Secret("".join(f"{name}={shlex.quote(value)}\n" for name, value in said.items()))


def redact_script(spec: ServeSpec) -> Secret:
    """Takes the secrets out of the log before it reaches the disk; their closed form has nothing that sed would read."""
    return Secret("".join(f"s|{secret.reveal()}|[secret]|g\n" for secret in sorted(spec.secrets, key=len, reverse=True)))


def log(host: Host, folder: str, spec: ServeSpec, limit: int = LOG_BYTES) -> str:
    """The end of the server's log, without secrets. Not cleaned: clean what is shown."""
    result = host.run('tail -c "$bytes" -- "$HOME/$folder/server.log"', values={"bytes": str(limit), "folder": folder}, check=False)
    return _redacted(result.stdout, spec)


def alive(host: Host, server: Server) -> bool:
    """Is its process there? For the minutes after it was ready."""
    return bool(_probe(host, server.folder, server.port, server.name, 10.0)["alive"])


def exposure(runtime: Runtime, spec: ServeSpec, opened: Sequence[Json]) -> tuple[str, ...]:
    """What came to listen on reachable addresses since before the start: an error, unless it is the one thing known and unavoidable."""
    noted = []
    for row in opened:
        where = f"{row['address']}:{row['port']}" + (f" ({row['process']})" if row.get("process") else "")
        if row["port"] == spec.port or not runtime.opens_store(spec) or row["port"] < 1024:
            raise RunError(
                f"{where} can be reached from other machines since the server was started",
                why=f"{runtime.name} {spec.version} was told to listen on 127.0.0.1:{spec.port} only",
                next="look at runtime.flags in the profile for what opens it; gpulease logs   has what the server said",
            )
        noted.append(where)
    return tuple(noted)


def _ready(
    host: Host,
    runtime: Runtime,
    spec: ServeSpec,
    folder: str,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
    now: Callable[[], float],
    timeout_s: float,
    every_s: float,
    answer_s: float,
) -> dict[str, Any]:
    end, told = now() + timeout_s, _Progress(runtime, say, now)
    while True:
        seen = _probe(host, folder, spec.port, spec.name, answer_s)
        state = seen["state"]
        if state == "ready":
            return seen
        if state == "dead":
            raise _died(host, runtime, spec, folder, seen)
        if state == "wrong-model":
            raise _failed(
                host, runtime, spec, folder, f"{runtime.name} serves {_words(seen.get('names'))}; the profile names {spec.name}", seen
            )
        if state in ("refused", "no-answer"):
            raise _failed(host, runtime, spec, folder, f"{runtime.name} is up and does not do its work: {_words(seen.get('why'))}", seen)
        told.line(seen.get("line"))
        if now() + every_s > end:
            raise _failed(
                host, runtime, spec, folder, f"{runtime.name} was not ready after {timeout_s:g} s: {_words(seen.get('why'))}", seen
            )
        sleep(every_s)


class _Progress:
    """Says each landmark of the log once, and something at least every half minute."""

    def __init__(self, runtime: Runtime, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self.left, self.name, self.say, self.now, self.said = list(runtime.landmarks), runtime.name, say, now, now()

    def line(self, text: Json) -> None:
        import re

        from provisioner.clean import clean

        line = clean(str(text or ""), limit=200)
        for at, (pattern, words) in enumerate(self.left):
            if re.search(pattern, line):
                self._tell(words)
                del self.left[: at + 1]
                return
        if line and self.now() - self.said >= _QUIET_S:
            self._tell(f"still starting; its log ends: {line}")

    def _tell(self, words: str) -> None:
        self.say(f"{self.name}: {words}")
        self.said = self.now()


def _probe(host: Host, folder: str, port: int, name: str, answer_s: float) -> dict[str, Any]:
    script = (files("provisioner.runtimes") / "probe.py").read_bytes()
    values = {"folder": f"~/{folder}", "port": str(port), "model": name, "seconds": f"{answer_s:g}"}
    result = host.run(
        'exec python3 -I -S - "$folder" "$port" "$model" "$seconds"', values=values, stdin=script, timeout=answer_s + 60, check=False
    )
    lines = result.stdout.strip().splitlines()
    try:
        seen = json.loads(lines[-1])
        known = result.exit == 0 and isinstance(seen, dict) and {"alive", "state"} <= set(seen)
        if known and (seen["state"] != "ready" or (type(seen.get("first_ms")) is int and 0 <= seen["first_ms"] < 1 << 40)):
            return dict(seen)
    except (ValueError, IndexError, RecursionError):
        pass  # said below, with what was printed instead
    raise HostError(
        f"the server on {host.name} could not be looked at",
        why=_words(result.stderr or result.stdout)[-300:],
        next="an image with a python3 that works (launch.image); on a machine of your own: python3 -V",
    )


def _died(host: Host, runtime: Runtime, spec: ServeSpec, folder: str, seen: Mapping[str, Any]) -> RuntimeFailed:
    code = seen.get("exit")
    ended = f"ended with {code}" if isinstance(code, int) else "was ended from outside"
    if code == 137:
        ended += " (killed; most often the machine's memory ran out)"
    return _failed(host, runtime, spec, folder, f"{runtime.name} {ended} before it was ready", seen)


def _failed(host: Host, runtime: Runtime, spec: ServeSpec, folder: str, what: str, seen: Mapping[str, Any]) -> RuntimeFailed:
    text = log(host, folder, spec)
    found = runtime.diagnose(text)
    said = [_redacted(_words(seen["body"]), spec)] if seen.get("body") else []
    if found is None:
        return RuntimeFailed(
            what,
            why="\n".join([*said, _tail(text) or "its log is empty"]),
            next="gpulease logs   has more of it; what the profile decides is `runtime.flags`",
        )
    return RuntimeFailed(f"{what}: {found.what}", why="\n".join([found.why, *said, "the log ends:", _tail(text)]), next=found.next)


def _redacted(text: str, spec: ServeSpec) -> str:
    for secret in spec.secrets:
        text = secret.hidden(text)
    return text


def _tail(text: str) -> str:
    from provisioner.clean import clean_lines

    return "\n".join(clean_lines(text, last=TAIL_LINES, limit=300))


def _words(value: Json) -> str:
    from provisioner.clean import clean

    return clean(", ".join(str(item) for item in value) if isinstance(value, list) else str(value or "no reason given"), limit=400)
