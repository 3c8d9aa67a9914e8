"""The WSGI application: AWS's API on `/`, and the rehearsal's own controls under `/_rehearsal/`.

Every API request is logged before it is answered (time, request id, user agent; for changes also what they name), then
matched against the armed faults, then carried out, and only then, where a fault says so, is its answer lost. Requests
wait while moto is still loading. Every answer carries a Date (the HTTP server's), an x-amzn-requestid and `X-Simulated`.

Whoever can reach this port can start processes as its user, so three things are refused: another user of this computer
(by the owner of the caller's socket, where the system tells), a Host header that is not loopback (a browser on a
rebound name), and an API call without SigV4 (a browser's form).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from provisioner.rehearsal import SIMULATED, authorization, engine, policy
from provisioner.rehearsal.faults import KNOWN, Fault, Plan
from provisioner.rehearsal.peer import owner
from provisioner.rehearsal.throttle import Buckets
from provisioner.rehearsal.wire import Call, Refusal, Reply, parse, refusal, spoken, stamp

_MOST_BYTES = 4 << 20
_SECRET = ("UserData", "PublicKeyMaterial", "PolicyDocument", "PlainText")
StartResponse = Callable[..., Any]


class Endpoint:
    def __init__(self, state: Path, plan: Plan, host_command: Sequence[str]) -> None:
        self.plan = plan
        self.stop = threading.Event()
        self._quiet_since = time.monotonic()
        self._in_flight = 0
        self._count_lock = threading.Lock()
        self._buckets = Buckets()
        self._state, self._host_command = state, host_command
        self._loaded = threading.Event()
        self._policy: policy.Document | None = None  # the caller's; None: nothing is asked about
        self._log: deque[dict[str, Any]] = deque(maxlen=20_000)
        self._lock = threading.RLock()

    def load(self) -> None:
        """Everything that needs moto. Requests wait for it."""
        engine.load(self._state)
        from provisioner.rehearsal import account, account_quotas, bill, machines, price_list
        from provisioner.rehearsal.ec2 import Ec2
        from provisioner.rehearsal.lifecycle import Clock, Lifecycle
        from provisioner.rehearsal.scheduler import Scheduler
        from provisioner.rehearsal.spot import Spots
        from provisioner.rehearsal.supervisor import Hosts
        from provisioner.rehearsal.trail import Trail
        from provisioner.rehearsal.truth import Truth
        from provisioner.rehearsal.ways import Ways

        machines.install()
        self.truth = Truth()
        clock = Clock()
        lifecycle = self._lifecycle = Lifecycle(self._lock, self.plan, clock, self.truth)
        self.hosts = lifecycle.hosts = Hosts(self._state, self._host_command, lifecycle.host_ended, lifecycle.host_is_up)
        self._spots = Spots(self._lock, self.plan, lifecycle, self.truth)
        lifecycle.on_running, self.hosts.busy = self._spots.running, self._spots.busy
        self._ec2 = Ec2(self._lock, self.plan, lifecycle, self.truth, self._spots)
        self._scheduler = Scheduler(self._lock, clock, self.truth, self._act)
        self._services: dict[str, Callable[[Call], Reply]] = {"ec2": self._ec2.answer, "sts": account.sts}
        self._ways = Ways(self._lock, self.plan, self.hosts)
        self._services |= {"ssm": self._ways.ssm, "ec2-instance-connect": self._ways.open_tunnel}
        self._services |= {"pricing": price_list.pricing, "servicequotas": account_quotas.service(self.plan)}
        self._services |= {"scheduler": self._scheduler.answer, "iam": account.iam(self.plan)}
        self._trail = Trail()
        self._services |= {"cloudtrail": self._trail.cloudtrail, "s3": self._trail.s3, "ce": bill.service(self.truth)}
        self._quiet_since = time.monotonic()
        self._loaded.set()
        engine.warm()

    def quiet_for(self) -> float:
        """Seconds without machine and request; 0 while there is either."""
        with self._count_lock:
            return 0.0 if self._in_flight or self.truth.alive() else time.monotonic() - max(self._quiet_since, self.truth.last_end)

    def close(self) -> None:
        """Takes every machine away; returns when their processes are dead."""
        self.stop.set()
        if self._loaded.is_set():
            self.hosts.kill_all(self.plan.timing.kill_grace_s)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        with self._count_lock:
            self._in_flight += 1
        try:
            return self._answer(environ, start_response)
        finally:
            with self._count_lock:
                self._in_flight -= 1
                self._quiet_since = time.monotonic()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        call: Call | None = None
        try:
            _refuse_strangers(environ)
            size = int(environ.get("CONTENT_LENGTH") or 0)
            if size > _MOST_BYTES:
                raise Refusal("RequestEntityTooLarge", f"the request is {size} bytes; at most {_MOST_BYTES} are read", 413)
            body = environ["wsgi.input"].read(size)
            path = environ.get("PATH_INFO", "/")
            if path.startswith("/_rehearsal/"):
                reply = self._control(environ["REQUEST_METHOD"], path.removeprefix("/_rehearsal/"), environ.get("QUERY_STRING", ""), body)
            else:
                call = parse(environ, body)
                reply = self._api(call, environ)
        except Refusal as no:
            reply = refusal(call, no)
        return _send(reply, call, start_response)

    def _api(self, call: Call, environ: dict[str, Any]) -> Reply:
        entry = self._note(call)
        self._loaded.wait()
        try:
            zone = self._ec2.zone(call) if call.service == "ec2" else ""
        except Refusal:
            zone = ""  # the call itself will say what is wrong with it
        if not self._buckets.take(self.plan.world.throttle, call.action, call.region):
            entry["fault"], slow = "throttle", Refusal("RequestLimitExceeded", "Request limit exceeded.", 503)
            no = spoken(slow, call)
            entry["error"], entry["status"] = no.code, no.status
            return refusal(call, no)
        fault = self.plan.match(call.action, call.region, zone)
        if fault is not None:
            entry["fault"] = fault.kind
        if fault is not None and not fault.effect:
            entry["status"] = fault.status
            return self._fail(fault, call, environ, zone)
        try:
            if self._policy is not None:
                entry["permissions"] = authorization.require(call, [self._policy])
            reply = self._services.get(call.service, engine.ask)(call)
        except Refusal as no:
            reply, entry["error"] = refusal(call, no), no.code
        except Exception:  # the end of this request; a client must get an answer an SDK can read, and we the trace
            traceback.print_exc(file=sys.stderr)
            broken = Refusal("InternalError", "the rehearsal itself failed; its serve.log says how", 500)
            reply, entry["error"] = refusal(call, broken), broken.code
        entry["status"] = reply.status
        self._trail.record(call, reply, entry.get("error"))
        if fault is not None:
            return self._fail(fault, call, environ, zone, reply)
        return reply

    def _act(self, call: Call) -> Reply:
        """What a schedule does: as its role, which its policies decide, and past the faults, which are about clients."""
        entry = self._note(call)
        role = call.user_agent.split()[-1]
        _, documents = authorization.role_documents(role) or ({}, [])
        try:
            entry["permissions"] = authorization.require(call, documents, role)
            reply = self._ec2.answer(call)
        except Refusal as no:
            entry["error"], entry["status"] = no.code, no.status
            raise
        entry["status"] = reply.status
        self._trail.record(call, reply, None)
        return reply

    def _fail(self, fault: Fault, call: Call, environ: dict[str, Any], zone: str, reply: Reply | None = None) -> Reply:
        if fault.kind == "error":
            if fault.code == "UnauthorizedOperation" and fault.message == KNOWN[fault.code][1]:
                from provisioner.rehearsal import account, denial

                return refusal(call, denial.denied(call, account.ARN))
            words = fault.message.replace("{zone}", zone or call.region).replace("{type}", call.params.get("InstanceType", "instance"))
            return refusal(call, Refusal(fault.code, words, fault.status))
        if fault.kind in ("hang", "slow"):
            self.stop.wait(fault.seconds)
        if fault.kind == "slow" and reply is not None:
            return reply
        if fault.kind == "garbled" and reply is not None:
            return Reply(reply.status, reply.content_type, reply.body[: len(reply.body) // 2])
        _reset(environ)
        raise ConnectionResetError("by a fault of the plan")

    def _note(self, call: Call) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "at": stamp(call.at),
            "service": call.service,
            "region": call.region,
            "action": call.action,
            "requestId": call.request_id,
            "userAgent": call.user_agent,
        }
        if call.mutates:
            entry["params"] = {key: value[:256] for key, value in call.params.items() if key not in ("Action", "Version", *_SECRET)}
        self._log.append(entry)
        return entry

    def _control(self, method: str, what: str, query: str, body: bytes) -> Reply:
        if (method, what) == ("POST", "stop"):
            threading.Timer(0.05, self.stop.set).start()  # so that this answer is still sent
            return _json({"stopping": True})
        if (method, what) == ("POST", "faults"):
            return self._add_faults(body)
        if (method, what) == ("POST", "policy"):
            return self._enforce(body)
        if (method, what) == ("GET", "info"):
            return _json({"pid": os.getpid(), "state": str(self._state), "simulated": True})
        if (method, what) == ("GET", "log"):
            return _json(list(self._log))
        self._loaded.wait()
        if (method, what) == ("GET", "truth"):
            return _json(
                [
                    {**entry, "host": self.hosts.describe(entry["id"])} if entry["class"] == "instance" else entry
                    for entry in self.truth.tell()
                ]
            )
        if (method, what) == ("GET", "route"):
            return _json(self._ways.by_address(query))
        raise Refusal("NotFound", f"the rehearsal has no {method} {what}", 404)

    def _add_faults(self, body: bytes) -> Reply:
        try:
            document = json.loads(body or b"null")
            armed = 0 if document is None else self.plan.add(document)
        except (ValueError, TypeError) as e:
            raise Refusal("InvalidFault", str(e)) from e
        host: dict[str, Any] = {**self.plan.clear()} if document is None else self.plan.host()
        if self._loaded.is_set():
            if host:
                self.hosts.change_faults(host)
            self._spots.changed()
            self._lifecycle.loosen()
        return _json({"armed": armed})

    def _enforce(self, body: bytes) -> Reply:
        """From now on the caller has exactly this policy; null takes it away again."""
        try:
            document = json.loads(body or b"null")
            self._policy = None if document is None else policy.check(document)
        except ValueError as e:
            raise Refusal("MalformedPolicyDocument", str(e)) from e
        return _json({"enforced": self._policy is not None})


def _send(reply: Reply, call: Call | None, start_response: StartResponse) -> list[bytes]:
    headers = [
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(reply.body))),
        ("x-amzn-requestid", call.request_id if call else str(uuid.uuid4())),
        ("X-Simulated", SIMULATED),
        *reply.headers,
    ]
    start_response(f"{reply.status} {'OK' if reply.status < 400 else 'Error'}", headers)
    return [reply.body]


def _json(document: object) -> Reply:
    return Reply(200, "application/json", json.dumps(document).encode())


def _reset(environ: dict[str, Any]) -> None:
    """RST instead of FIN: what a client sees when the other side's machine or a middlebox drops it."""
    connection = environ.get("werkzeug.socket")
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):  # it may be gone already, which is what is wanted
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def _refuse_strangers(environ: dict[str, Any]) -> None:
    host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
    if host not in ("127.0.0.1", "localhost"):
        raise Refusal("AuthFailure", f"the rehearsal is not {host!r}", 403)
    caller = owner(environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"]), "127.0.0.1", int(environ["SERVER_PORT"]))
    if caller is not None and caller not in (os.getuid(), 0):
        raise Refusal("AuthFailure", f"the rehearsal belongs to user {os.getuid()}, and the caller is {caller}", 403)
