"""As whom botocore would call AWS, until when that is sure to work, and whether it is long enough for a run.

Two ideas. *Resolve first, then send*: whatever a login can fail with (a token that has run out, a `credential_process`
that is not there or prints nonsense) happens in `ready`, before a request exists, so that it is never mistaken for a lost
answer. *Sure, not hopeful*: `sure_until` is the instant up to which calls work without anybody logging in again, as far
as this machine can show it. Where botocore renews by itself, it is the end of what it renews from: an SSO token's end by
its cache file, the source of an assumed role. An end that nobody wrote down is UNKNOWN, which is not "long enough".

A `credential_process` gets a minute, which botocore does not limit: one that hangs (it asks somebody who is not there)
would hang the run, and with it the way out.

It reads botocore's configuration and the SSO token's times. No key, no token and nothing that a `credential_process`
wrote to its stdout is kept, printed or put into an error.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from provisioner.errors import ProviderError, RefusedError
from provisioner.providers.aws_errors import NEVER_SENT, login_next

Ends = int | Literal["never", "unknown"]
"""Seconds since 1970, or a word: keys that do not end, or an end that nothing here tells."""

LETTING_GO_S = 15 * 60
"""A login must outlast the run by this: as long as `release` goes on looking."""

WAYS = {
    "env": "environment variables",
    "shared-credentials-file": "keys in the credentials file",
    "config-file": "keys in the config file",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a role assumed with a web identity token",
    "sso": "IAM Identity Center (SSO)",
    "login": "aws login",
    "custom-process": "credential_process",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
    "explicit": "fixed keys",
}
PROCESS_S = 60.0
"""What a `credential_process` may take: long enough for somebody to type a code. One that hung is not asked again for a minute."""
ASKED_AGAIN_S = 60.0

EXPIRY_KEYS = ("x_security_token_expires", "expiration", "aws_expiration")
"""Beside a session token, tools write its end into the credentials file under these names."""


@dataclass(frozen=True)
class Login:
    way: str
    profile: str | None
    expires: Ends  # those in hand now
    sure_until: Ends  # including what botocore renews by itself
    renews: str  # how, in words; "" when it cannot
    next: str  # what to do when it ends

    def text(self) -> str:
        who = self.way + (f", profile {self.profile}" if self.profile else "")
        if self.sure_until == "never":
            return f"{who}: no end" + (f"; {self.renews}" if self.renews else "")
        until = "end unknown" if self.sure_until == "unknown" else f"good until {clock(self.sure_until)}"
        return f"{who}: {until}; {self.renews or 'not renewed by itself'}"

    def record(self) -> dict[str, Any]:
        return {"way": self.way, "profile": self.profile, "sureUntil": shown(self.sure_until), "renews": self.renews or None}


def require(login: Login, run_s: int, now: float, guarded: bool) -> str:
    """Refuse a run that the login may not outlast, unless AWS itself would end its machine. Returns a word of warning, or ""."""
    if login.sure_until == "never":
        return ""
    needs = run_s + LETTING_GO_S
    left = None if login.sure_until == "unknown" else int(login.sure_until - now)
    if left is not None and left >= needs:
        return ""
    has = "an unknown time" if left is None else _span(left)
    short = f"{has} of this login left; the run may need {_span(needs)} ({_span(run_s)} and {_span(LETTING_GO_S)} to let go)"
    if guarded:
        return f"{short}. If it ends first, the schedule at AWS and the machine's own timers end the machine, and nobody here can see it"
    minutes = 0 if left is None else (left - LETTING_GO_S) // 60
    shorter = f"; or --minutes {minutes}" if minutes >= 15 else ""
    raise RefusedError(
        short,
        why=f"{login.text()}. No guard at AWS would end the machine without it (`schedule` is waived, or not there)",
        next=f"{login.next}{shorter}; or the guard at AWS: gpulease init aws, and no `waive: [schedule]`",
    )


def ready(session: Any) -> Any:
    """The credentials, renewed if that is due. Everything that fails in here failed before anything was sent."""
    from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError

    try:
        found = session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()
        return found
    except BotoCoreError as e:
        if type(e).__name__ in NEVER_SENT:
            raise
        raise CredentialRetrievalError(provider="the source of the session", error_msg=f"{type(e).__name__}: {e}") from e
    except ClientError as e:  # AWS refused to give the session: the source's login, or a role that may not be assumed
        error = e.response.get("Error", {})
        words = f"{error.get('Code')}: {error.get('Message')}"
        raise CredentialRetrievalError(provider="the source of the session", error_msg=words) from e
    except Exception as e:
        # Not botocore's alone: a credential_process may be missing, print nonsense, or give what has already ended.
        # Its output stays out of the message: it may hold the keys.
        words = str(e) if isinstance(e, OSError | RuntimeError) else "it cannot be read"
        raise CredentialRetrievalError(provider="the source of the session", error_msg=f"{type(e).__name__}: {words}") from e


def bound_processes() -> None:
    """Every `credential_process` from here on, also that of a role's source, by the one name under which botocore makes them."""
    import botocore.credentials

    credentials: Any = botocore.credentials
    theirs: Any = credentials.ProcessProvider
    if theirs.__name__ == "Bounded":
        return

    class Bounded(theirs):  # type: ignore[misc]
        def __init__(self, profile_name: str, load_config: Any) -> None:
            super().__init__(profile_name, load_config, popen=_Process)

    credentials.ProcessProvider = Bounded


_hung: dict[tuple[str, ...], float] = {}


class _Process(subprocess.Popen[bytes]):
    """One that is ended when it takes too long. In the group of the terminal, so that it can ask there."""

    def __init__(self, words: list[str], **how: Any) -> None:
        self._words = tuple(words)
        # A look asks twenty things, and each would wait for it again.
        if time.monotonic() < _hung.get(self._words, 0.0):
            raise _too_slow()
        super().__init__(words, **how)

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        try:
            return super().communicate(input, timeout or PROCESS_S)
        except subprocess.TimeoutExpired:
            _hung[self._words] = time.monotonic() + ASKED_AGAIN_S
            raise _too_slow() from None
        finally:
            if self.poll() is None:
                self.kill()
                self.wait()
            for pipe in (self.stdout, self.stderr):  # what it started may hold the other ends; nobody reads them any more
                if pipe is not None:
                    pipe.close()


def _too_slow() -> TimeoutError:
    return TimeoutError(
        f"the credential_process gave no keys within {PROCESS_S:.0f} s and was ended; it may wait for somebody to answer it"
    )


def examine(session: Any, profile: str | None) -> Login:
    """Which kind of credentials the session found, and until when. ProviderError where there are none."""
    found = ready(session)
    if found is None:
        raise ProviderError("no AWS credentials were found", why="neither the environment nor ~/.aws has any", next=login_next(profile))
    config = _config(session)
    return _login(found, config, profile or _named(session), again(session, profile))


def again(session: Any, profile: str | None) -> str:
    """What to do so that calls work again, by what the configuration says."""
    from botocore.exceptions import BotoCoreError

    try:
        whole = _config(session)
    except BotoCoreError:
        return login_next(profile)
    config = _section(whole, profile or _named(session))
    flag = f" --profile {profile}" if profile else ""
    seen = set[str]()
    while (source := config.get("source_profile")) and source not in seen:
        seen.add(source)
        flag, config = f" --profile {source}", _section(whole, source)
    if "sso_session" in config or "sso_start_url" in config:
        return f"aws sso login{flag}"
    if "login_session" in config:
        return f"aws login{flag}"
    if "credential_process" in config:
        return f"make the credential_process give fresh keys: aws sts get-caller-identity{flag}"
    return login_next(profile)


def _login(found: Any, config: Mapping[str, Any], profile: str | None, next: str) -> Login:
    way, expires = str(found.method), _expiry(found)
    section = _section(config, profile)
    sure, renews = expires, ""
    if way in ("container-role", "iam-role"):
        sure, renews = "never", "renewed by the machine it belongs to"
    elif way == "sso":
        sure, renews = _sso(expires, section, config)
    elif way == "login":
        renews = "renewed while the console session lasts, whose end is not written here"
    elif way == "custom-process":
        renews = "the process is run again; whether it still gives keys then is not known" if found_expiry(found) else ""
    elif way == "assume-role":
        sure, renews = _role(expires, section, config)
    elif way == "assume-role-with-web-identity":
        renews = "renewed from the token's file, as long as somebody keeps that fresh"
    elif found.token and expires == "unknown":
        sure = expires = _written(section)
    if way == "env":
        profile, next = None, f"export fresh keys, in a new terminal; or {next}"
    return Login(WAYS.get(way, way), profile, expires, sure, renews, next)


def found_expiry(found: Any) -> datetime | None:
    """botocore shows the end of a session nowhere in public."""
    moment = getattr(found, "_expiry_time", None)
    return moment if isinstance(moment, datetime) else None


def _expiry(found: Any) -> Ends:
    moment = found_expiry(found)
    if moment is not None:
        return int(moment.timestamp())
    return "unknown" if found.token else "never"


def _sso(expires: Ends, section: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Ends, str]:
    """A role's keys are fetched anew with the SSO token; the token of an sso-session is itself renewed for as long as that lasts."""
    name = section.get("sso_session")
    start = config.get("sso_sessions", {}).get(name, {}).get("sso_start_url") if name else section.get("sso_start_url")
    cached = _cached_token(str(name or start or ""))
    token = _moment(cached.get("expiresAt"))
    sure = _later(expires, token)
    if "refreshToken" in cached:
        return sure, "renewed by itself until the SSO session ends, and that end is not written here"
    ends = f"that ends {clock(token)}" if isinstance(token, int) else "whose end cannot be read"
    return sure, f"renewed by itself from the SSO token, {ends}"


def _cached_token(name: str) -> dict[str, Any]:
    """Only its times and whether it can be renewed; the tokens themselves stay where they are."""
    path = Path.home() / ".aws" / "sso" / "cache" / f"{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()}.json"
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    kept = {key: read[key] for key in ("expiresAt", "registrationExpiresAt") if isinstance(read, dict) and key in read}
    return kept | ({"refreshToken": True} if isinstance(read, dict) and read.get("refreshToken") else {})


def _role(expires: Ends, section: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Ends, str]:
    """Assumed again with the source's keys, for as long as those last; with an MFA code only once."""
    if section.get("mfa_serial"):
        return expires, "not renewed: it needs an MFA code"
    source = section.get("source_profile")
    if section.get("credential_source") in ("Ec2InstanceMetadata", "EcsContainer"):
        return "never", "assumed again with the role of this machine"
    if not source:
        return expires, "assumed again with the keys of the environment, whose end is not looked at"
    return _later(expires, _source_end(str(source), section, config)), f"assumed again with the keys of profile {source}"


def _source_end(name: str, asking: Mapping[str, Any], config: Mapping[str, Any]) -> Ends:
    import botocore.session

    source = _section(config, name)
    if "aws_access_key_id" in source and (source is asking or "role_arn" not in source):
        return "never" if not source.get("aws_session_token") else _written(source)
    inner = botocore.session.Session(profile=name)
    return examine(inner, name).sure_until


def _config(session: Any) -> Mapping[str, Any]:
    """All profiles. A boto3 session shows them only through the botocore session that it is made of."""
    found: Mapping[str, Any] = getattr(session, "_session", session).full_config
    return found


def _named(session: Any) -> str | None:
    found = getattr(session, "_session", session).get_config_variable("profile")
    return str(found) if found else None


def _section(config: Mapping[str, Any], profile: str | None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get("profiles", {}).get(profile or "default", {})
    return found


def _written(section: Mapping[str, Any]) -> Ends:
    ends = [end for key in EXPIRY_KEYS if (end := _moment(section.get(key))) != "unknown"]
    return ends[0] if ends else "unknown"


def _moment(text: object) -> Ends:
    try:
        moment = datetime.fromisoformat(str(text).replace("UTC", "+00:00"))
    except ValueError:
        return "unknown"
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _later(one: Ends, other: Ends) -> Ends:
    if "never" in (one, other):
        return "never"
    known = [end for end in (one, other) if isinstance(end, int)]
    return max(known, default="unknown")


def shown(end: Ends) -> str:
    return end if isinstance(end, str) else datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(end: Ends) -> str:
    return end if isinstance(end, str) else datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _span(seconds: int) -> str:
    return "nothing" if seconds <= 0 else f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
