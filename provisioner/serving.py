"""The inference server of one run: what the profile asks for, made into a running server, and its log brought home.

Here the runtime (what to run), the playbooks (how) and the machine (where) meet; none of the three knows the others.
The key is made for this run, exists on the machine in 0600 files only, and never enters an argument list or the
journal. Whatever happens, the end of the server's log is fetched while the connection still stands: a failure that
cannot be read afterwards costs the same money again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provisioner import runtimes
from provisioner.errors import GpuleaseError
from provisioner.ledger import write_private
from provisioner.life import Life
from provisioner.model import Host
from provisioner.profile import Profile
from provisioner.remote import facts, play, playbook, ssh
from provisioner.runtimes import server
from provisioner.scope import Cancelled
from provisioner.secret import Secret

LAST_WORDS_S = 8.0
"""To fetch the end of the server's log before a rented machine is let go of."""

STOP_S = 40.0
"""To stop the server as well, on a machine that stays: a stubborn one takes SIGKILL after 15 s."""


@dataclass(frozen=True)
class Serving:
    """A server that has answered a real completion."""

    host: Host
    server: server.Server
    api_key: Secret

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def health(self) -> str:
        return self.server.health

    @property
    def model_name(self) -> str:
        return self.server.name


def spec_of(profile: Profile, *, port: int = 0, api_key: Secret | None = None) -> runtimes.ServeSpec:
    """What the profile asks the server to be. Raises RefusedError for what could not start, before anything is rented."""
    spec = runtimes.ServeSpec(
        model=profile.model.id,
        revision=profile.model.revision,
        name=profile.model.served_name,
        version=profile.runtime.version,
        port=port,
        concurrency=profile.load.concurrency,
        gpus=profile.requirements.gpus,
        flags=profile.runtime.flags,
        env=profile.runtime.env,
        command=profile.runtime.command,
        api_key=api_key,
        hf_token=Secret(os.environ["HF_TOKEN"]) if os.environ.get("HF_TOKEN") else None,
    )
    runtime = runtimes.get(profile.runtime.name)
    runtime.argv(spec), runtime.env(spec)
    return spec


@contextlib.contextmanager
def serve(life: Life, host: Host) -> Iterator[Serving]:
    """Install, start, wait for the first real answer; on the way out bring the log home and stop it."""
    profile = life.plan.profile
    runtime = runtimes.get(profile.runtime.name)
    key = Secret(secrets.token_hex(24))
    spec = spec_of(profile, port=ssh.free_port(host), api_key=key)
    folder = f".gpulease/{life.lease.id}"

    def say(line: str) -> None:
        # An installation may take minutes and is told step by step; starting and stopping take a moment.
        if line.startswith(f"{runtime.name}: ") and ": undo " not in line:
            life.tell("serve", line)

    goes = life.lease.provider.traits.powers_itself_off

    @contextlib.contextmanager
    def begun(name: str, values: Mapping[str, str], *, secrets: Any = None, files: Any = None) -> Iterator[Any]:
        # The machine itself goes in a moment, and every second until it is asked to is paid for: nothing is undone on it.
        yield play.play(playbook.resolve(name), host, values, sleep=life.waits.sleep, secrets=secrets, files=files, say=say)

    def exposed() -> Any:
        return facts.exposed(facts.read(host, "listeners").value)

    try:
        with contextlib.ExitStack() as stack:
            with life.stage("serve") as detail:
                starting = server.serve(
                    host,
                    runtime,
                    spec,
                    lease=life.lease.id,
                    play=begun if goes else play.Player(host, sleep=life.waits.sleep, say=say),
                    exposed=exposed,
                    sleep=life.waits.sleep,
                    say=lambda line: life.tell("serve", line),
                    every_s=0.5 if life.plan.simulated else 2.0,
                    system_packages=life.lease.provider.name != "static",
                )
                with life.waiting("serve", f"{runtime.name} to be installed and to answer"):
                    running = stack.enter_context(starting)
                detail |= {
                    "runtime": running.runtime,
                    "version": running.version,
                    "model": profile.model.id,
                    "revision": profile.model.revision,
                    "port": running.port,
                    "readyMs": running.ready_ms,
                    "firstAnswerMs": running.first_ms,
                    "keyRequired": running.key_required,
                    "figures": dict(running.figures),
                    "exposed": list(running.exposed),
                    "simulated": life.plan.simulated,
                }
                life.tell(
                    "serve", f"{running.runtime} {running.version} on 127.0.0.1:{running.port}, ready in {running.ready_ms / 1000:.1f} s"
                )
            try:
                yield Serving(host, running, key)
            finally:
                # From here on nothing waits for the run's scope: a signal must not cost the log, nor the stop.
                life.waits.grace(LAST_WORDS_S if goes else STOP_S, life.clock)
                save_log(life, host, folder, spec)
    except BaseException:
        life.waits.grace(LAST_WORDS_S if goes else STOP_S, life.clock)
        save_log(life, host, folder, spec)
        raise


def save_log(life: Life, host: Host, folder: str, spec: runtimes.ServeSpec) -> None:
    """The end of the server's log into the lease's folder. A convenience: what fails here must not hide what went wrong."""
    path = life.folder.path / "server.log"
    if path.exists():
        return
    with contextlib.suppress(GpuleaseError, Cancelled, OSError):
        write_private(path, server.log(host, folder, spec).encode())
