"""One AWS account and region on the wire: two kinds of clients, one way to call, every answer dated.

*Mutations are sent once.* botocore's own retries are off for them, so that the journal's one intent is one request;
reads are retried by botocore's standard mode, at most three times. Every call has a connect and a read timeout.

*The anchor.* `anchor` is put into the user agent of every request just before it is sent, after signing (the header
is not signed), so CloudTrail records a commitment to the journal as it was at that moment.

*A login that ran out is read again.* Clients and sessions are kept for the process, and with them keys that somebody may
have renewed on disk since (`aws sso login` in another terminal). Credentials that AWS refuses, or that cannot be
resolved, are forgotten, and a read is asked once more with what is on disk now. A mutation is not: who sent it looks again.

With an `endpoint` (the rehearsal) the address must be loopback, the credentials are fixed and worthless, and no
proxy is used: real keys never go to an endpoint that somebody put into a setting. Without one, endpoint URLs from the
environment or the AWS config file are ignored, because a verdict must not depend on them.
This file must not know what a lease is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from provisioner.errors import ProviderError, RefusedError
from provisioner.model import Json
from provisioner.providers import aws_login
from provisioner.providers.aws_errors import CREDENTIALS, NO_LOGIN, fault, login_next, request_id_of
from provisioner.secret import Secret

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, CHANGE_TIMEOUT_S = 5, 30, 60
READ_ATTEMPTS = 3
MOST_PAGES = 1000


@dataclass(frozen=True)
class Answer:
    """What AWS said, under which request id, and at what time by its own clock."""

    data: dict[str, Any] = field(repr=False)
    request_id: str
    date: str | None

    def stamp(self) -> dict[str, Json]:
        stamp: dict[str, Json] = {"requestId": self.request_id}
        if self.date is not None:
            stamp["providerDate"] = self.date
        return stamp


def _opened(params: dict[str, Any]) -> dict[str, Any]:
    """What is sent: the one place where a secret among the parameters (a machine's user data) is given out."""
    return {
        name: _opened(one) if isinstance(one, dict) else one.reveal() if isinstance(one, Secret) else one for name, one in params.items()
    }


class Account:
    """Calls to one account in one region. Clients are made on first use; boto3 is imported then."""

    def __init__(self, region: str, profile: str | None = None, endpoint: str | None = None) -> None:
        if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", region or ""):
            raise RefusedError(f"{region!r} is not the name of an AWS region", next="write it like us-east-1")
        if endpoint is not None:
            _refuse_unless_loopback(endpoint)
        self.region, self.profile, self.endpoint = region, profile, endpoint
        self.anchor = ""
        self.last: Answer | None = None

    def ask(self, operation: str, *, service: str = "ec2", **params: Any) -> Answer:
        """A read. Raises NotPermitted or ProviderError."""
        try:
            return self._call(service, operation, params, changes=False, creating=False)
        except ProviderError as e:
            if self.endpoint is not None or e.provider_code not in STALE:
                raise
            return self._call(service, operation, params, changes=False, creating=False)

    def login(self) -> aws_login.Login:
        """As whom, and until when. ProviderError where there are no credentials."""
        from botocore.exceptions import BotoCoreError

        used = _session(self.profile, self.endpoint is not None)
        try:
            return aws_login.examine(used, self.profile)
        except BotoCoreError as e:
            raise self._refused(e, "credentials", used, creating=False) from e

    def create(self, operation: str, *, service: str = "ec2", **params: Any) -> Answer:
        """A request that makes something: sent once. Raises NotCreated only where nothing can have been made."""
        return self._call(service, operation, params, changes=True, creating=True)

    def change(self, operation: str, *, service: str = "ec2", **params: Any) -> Answer:
        """A request that changes or removes something: sent once."""
        return self._call(service, operation, params, changes=True, creating=False)

    def pages(self, operation: str, page_size: int | None, *, service: str = "ec2", **params: Any) -> Iterator[Answer]:
        """Every page of a listing, or an error: a page that cannot be read makes the whole listing unreadable."""
        if page_size is not None:
            params["MaxResults"] = page_size
        tokens: set[str] = set()
        for _ in range(MOST_PAGES):
            answer = self.ask(operation, service=service, **params)
            yield answer
            token = answer.data.get("NextToken")
            if not token:
                return
            if token in tokens:
                raise ProviderError(f"{operation}: AWS gave the same page twice, so the listing is not complete")
            tokens.add(token)
            params["NextToken"] = token
        raise ProviderError(f"{operation}: more than {MOST_PAGES} pages, so the listing is not complete")

    def _call(self, service: str, operation: str, params: dict[str, Any], *, changes: bool, creating: bool) -> Answer:
        from botocore import xform_name
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        said, used = _AGENT.set(self.agent()), None
        try:
            # One at a time: a session may not be shared by threads that make clients of it. Clients may be.
            with _MAKING:
                used = _session(self.profile, self.endpoint is not None)
                if self.endpoint is None:
                    try:
                        aws_login.ready(used)
                    except BotoCoreError:
                        forget()  # asked again, a session that failed at a role's source says that the profiles go round in a circle
                        raise
                client = _client(service, self.region, self.profile, self.endpoint, changes)
            data = getattr(client, xform_name(operation))(**_opened(params))
        except (BotoCoreError, ClientError, ResponseParserError) as e:
            self._note(getattr(e, "response", None) or {})
            raise self._refused(e, operation, used, creating=creating) from e
        finally:
            _AGENT.reset(said)
        return self._note(data)

    def _refused(self, e: Exception, operation: str, used: Any, *, creating: bool) -> ProviderError:
        found = fault(e, operation, creating=creating, profile=self.profile)
        if self.endpoint is None and found.provider_code in CREDENTIALS | NO_LOGIN:
            found.next = aws_login.again(used, self.profile) or found.next
            with _MAKING:
                # A look asks twenty things side by side: what the first that is refused has had made anew is not thrown away by the others.
                if _session(self.profile, False) is used:
                    forget()
        return found

    def _note(self, data: dict[str, Any]) -> Answer:
        headers = data.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        answer = Answer(data, request_id_of(data), rfc3339(headers.get("date")))
        if answer.request_id or answer.date:
            self.last = answer
        return answer

    def agent(self) -> str:
        """What every request's user agent ends with."""
        # Nothing that could end the header or start another one.
        words = re.sub(r"[^!-~]+", " ", self.anchor)[:200].strip()
        name = f"gpulease/{_version()}"
        return words if words.startswith("gpulease/") else f"{name} {words}".strip()


STALE = (CREDENTIALS | NO_LOGIN) - {"RequestExpired"}
"""What newer credentials on disk may put right; a clock that is wrong they do not."""


def forget() -> None:
    """The next call reads configuration and credentials from disk again. Calls under way keep what they have."""
    _client.cache_clear()
    _session.cache_clear()


_MAKING = Lock()
_AGENT: ContextVar[str] = ContextVar("gpulease user agent", default="gpulease")


@cache
def _client(service: str, region: str, profile: str | None, endpoint: str | None, changes: bool) -> Any:
    """One per process: making one takes longer than most calls."""
    from botocore.config import Config

    # Through a dict, because the stubs that ship with boto3 lag behind what botocore takes.
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": CHANGE_TIMEOUT_S if changes else READ_TIMEOUT_S,
        "retries": {"mode": "standard", "total_max_attempts": 1 if changes else READ_ATTEMPTS},
        "max_pool_connections": 16,  # as many as ask at once: see aws_look
        "ignore_configured_endpoint_urls": True,
        "proxies": {} if endpoint else None,
    }
    connect: Any = _session(profile, endpoint is not None).client
    client = connect(service, region_name=region, endpoint_url=endpoint, config=Config(**options))
    client.meta.events.register("before-send", _sign_off)
    return client


def _sign_off(request: Any, **_: Any) -> None:
    request.headers["User-Agent"] = f"{request.headers.get('User-Agent', '')} {_AGENT.get()}".strip()


@cache
def _session(profile: str | None, rehearsed: bool) -> Any:
    """One per process and account: reading EC2's model takes a third of a second, and a login is kept in it."""
    import boto3
    import botocore.session
    from botocore.exceptions import BotoCoreError

    aws_login.bound_processes()
    try:
        core = botocore.session.Session(profile=None if rehearsed else profile)
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_read_time)
        if rehearsed:
            return boto3.Session(aws_access_key_id="gpulease-rehearsal", aws_secret_access_key="not-a-secret", botocore_session=core)
        core.get_scoped_config()
        return boto3.Session(botocore_session=core)
    except BotoCoreError as e:  # a profile that is not there, a file that cannot be parsed
        what = f"AWS profile {profile!r} is not configured" if profile else f"your AWS configuration cannot be used: {e}"
        raise RefusedError(what, why="~/.aws and the AWS_ variables say so", next=login_next(profile)) from e


def _read_time(value: Any) -> datetime:
    """A time in an answer. EC2's own way to write one is read without dateutil, which takes half of what a long listing costs."""
    from botocore.utils import parse_timestamp

    if isinstance(value, str) and value.endswith("Z"):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(value)
    found: datetime = parse_timestamp(value)
    return found


@cache
def _version() -> str:
    try:
        return version("gpulease")
    except PackageNotFoundError:
        return "0"  # run from a checkout that was not installed


def rfc3339(date: str | None) -> str | None:
    """An HTTP Date header as RFC 3339 with a Z; None when there is none that can be read."""
    if not date:
        return None
    try:
        return instant(parsedate_to_datetime(date))
    except (TypeError, ValueError):
        return None


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse_unless_loopback(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if parts.scheme not in ("http", "https") or not loopback:
        raise RefusedError(
            f"the endpoint {endpoint!r} is not on this machine",
            why="an endpoint is for rehearsals; a verdict about AWS must come from AWS",
            next="gpulease run PROFILE --rehearse",
        )
