"""What a server is asked to be, and what every runtime can say about itself.

A ServeSpec is checked as a whole before anything is rented: each field has one closed form, because each ends in a
command line or a file on a machine that is paid for. Secrets are of a type that is not shown; they leave through `env` and
`files`, which become 0600 files, and through nothing else.

A Runtime is a row of pure functions, not a class hierarchy: what differs between servers is data. This file must
not know any server's flags, nor how a machine is reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from provisioner.errors import RefusedError
from provisioner.model import Json
from provisioner.secret import Secret

FlagValue = Json
"""As YAML gives it: true/false for a switch, text, a whole number, a list, or a mapping (written as JSON)."""

_FORMS = {
    "model": (
        r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}|/[\w./+-]{1,254}",
        "owner/name as on the hub, or an absolute path on the machine",
    ),
    "revision": (r"[0-9a-f]{40}", "the commit of the model repository, 40 hexadecimal digits"),
    "name": (r"[A-Za-z0-9][\w.:/@+-]{0,127}", "letters, digits and . : / @ + - _"),
    "version": (r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}([a-z.+-][a-z0-9.+-]{0,30})?", "a released version such as 0.33.0"),
    "command": (r"(/[\w.+-]+)+", "an absolute path"),
    "api_key": (r"[A-Za-z0-9][A-Za-z0-9_-]{15,127}", "at least 16 letters, digits, - and _, not beginning with -"),
    "hf_token": (r"[A-Za-z0-9][A-Za-z0-9_-]{7,255}", "letters, digits, - and _"),
}
_SECRET = {"api_key", "hf_token"}


@dataclass(frozen=True)
class ServeSpec:
    """One server on one machine. `port` is a free loopback port of that machine; 0 while planning, before there is one."""

    model: str
    revision: str | None
    name: str
    version: str
    port: int = 0
    concurrency: int = 1
    gpus: int = 1
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    api_key: Secret | None = field(default=None, repr=False)  # not in the repr at all: a Secret's own raises
    hf_token: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, (form, words) in _FORMS.items():
            value = getattr(self, name)
            if value is None and name in ("revision", "command", *_SECRET):
                continue
            if name in _SECRET:
                value = value.reveal() if isinstance(value, Secret) else None
            if not isinstance(value, str) or not re.fullmatch(form, value, re.ASCII):
                shown = "not usable" if name in _SECRET else repr(str(value)[:80])
                raise RefusedError(f"{name} is {shown}", why=f"expected {words}", next=f"correct {name} in the profile")
        if ".." in self.model.split("/") or ".." in (self.command or "").split("/"):
            raise RefusedError("a path climbs with ..", why=f"model {self.model!r}, command {self.command!r}")
        if self.revision is None and not self.model.startswith("/"):
            raise RefusedError(
                f"no revision is given for {self.model}", why="a model name alone can mean other weights tomorrow", next="give the commit"
            )
        for name, low, high in (("port", 0, 65535), ("concurrency", 1, 100_000), ("gpus", 0, 1024)):
            if not low <= getattr(self, name) <= high:
                raise RefusedError(f"{name} is {getattr(self, name)}; it must be from {low} to {high}")

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return tuple(secret for secret in (self.api_key, self.hf_token) if secret)


@dataclass(frozen=True)
class Diagnosis:
    """Why a server did not start: in our words, the line of its log that says so, and what to change."""

    what: str
    why: str
    next: str


@dataclass(frozen=True)
class Runtime:
    """One kind of inference server."""

    name: str
    argv: Callable[[ServeSpec], tuple[str, ...]]  # what follows the executable; refuses flags that will not parse
    env: Callable[[ServeSpec], dict[str, str | Secret]]  # complete, secrets included
    config: Callable[[ServeSpec], Secret]  # server.yaml beside the log, 0600; empty when the server needs none
    figures: Callable[[str], dict[str, int]]  # what the log says of memory and times
    diagnose: Callable[[str], Diagnosis | None]
    landmarks: Sequence[tuple[str, str]]  # (pattern of a log line, our words), in the order they come
    opens_store: Callable[[ServeSpec], bool]  # does it open torch's store, which listens on every address?
    health: str = "/health"
    metrics: str = "/metrics"


OURS_IN_ENV = {
    "VLLM_API_KEY": "the key is made for each run",
    "HF_TOKEN": "the token is handed over by file",
    "HUGGING_FACE_HUB_TOKEN": "the token is handed over by file",
    "VLLM_HOST_IP": "the server stays on the loopback address",
    "PATH": "it is made from where the server is installed",
    "HOME": "it is the login user's",
}


def environment(ours: Mapping[str, str | Secret], spec: ServeSpec) -> dict[str, str | Secret]:
    """Our variables and the profile's, refusing names that are ours, names that look like secrets, and values that are no line."""
    for name, value in spec.env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
            raise RefusedError(f"runtime.env has the name {name[:60]!r}", why="expected letters, digits and _")
        if name in OURS_IN_ENV:
            raise RefusedError(f"runtime.env may not set {name}", why=OURS_IN_ENV[name], next=f"take {name} out of the profile")
        if re.search(r"TOKEN$|SECRET|PASSWORD|API_?KEY|CREDENTIAL", name.upper()):
            raise RefusedError(
                f"runtime.env has {name}, which looks like a secret",
                why="a profile is kept and shown in reports",
                next=f"take {name} out of the profile",
            )
        if not isinstance(value, str) or len(value) > 4096 or re.search(r"[\x00-\x1f\x7f]", value):
            raise RefusedError(
                f"runtime.env.{name} cannot be an environment variable", why="expected one line of text, in quotes where it is a number"
            )
    secret = {"HF_TOKEN": spec.hf_token} if spec.hf_token else {}
    # Set before the profile's, so that it may undo them: no usage reports from a rented machine, a log that is not delayed.
    quiet = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    return {**quiet, **spec.env, **ours, **secret}
