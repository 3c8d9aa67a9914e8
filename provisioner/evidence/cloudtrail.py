"""CloudTrail's records held against a statement: did AWS receive the calls, and did it see the journal that we see?

A record joins by its request id. It must say what the statement says (which token, which machine, when), and each journal
head that AWS recorded in a user agent or a client token must be one of this journal's: whoever wrote another journal later
did not know then what to commit to. What is not there yet is missing; out of a complete chain of digests it is a contradiction.

Records come in two kinds of files: `events.jsonl`, copies of what LookupEvents gave, and the log files under `logs/`, whose
digests AWS signed (`digests`). Their text is a stranger's: bounded, and read with one meaning.
This file must not open anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.evidence.canonical import Malformed, milliseconds, parse
from provisioner.evidence.messages import Problem, problem

FOLDER = "aws/cloudtrail/"
EVENTS = f"{FOLDER}events.jsonl"
MOST_EVENTS = 50_000
SLACK_MS = 5000
"""Between CloudTrail's whole second of a call and the date of its answer: seconds for a slow launch, never minutes."""

HEAD = re.compile(r"\bgpulease/\S+ run/(r-[0-9]{8}t[0-9]{6}z-[0-9a-hjkmnp-tv-z]{8}) jh/([0-9a-f]{32})\b")
TOKEN = re.compile(r"([0-9a-hjkmnp-tv-z]{8})-[0-9]{1,6}-([0-9a-f]{32})")
MAKES = frozenset({"RunInstances", "CreateSecurityGroup", "CreateSchedule", "CreateVolume", "AllocateAddress", "CreateFleet"})
BY_FLEET = {"RunInstances": "CreateFleet", "TerminateInstances": "DeleteFleets"}
"""What a lease calls instead where a fleet makes and ends its machine; AWS's fleet service then calls the other."""

Event = dict[str, Any]


@dataclass
class Compared:
    """What records say of a statement. `missing` names what no record shows."""

    ours: int = 0
    wrong: list[Problem] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)  # what was asked, and its request id

    @property
    def whole(self) -> bool:
        return self.ours > 0 and not self.wrong and not self.missing


def looked_up(aws: Mapping[str, bytes]) -> list[Event]:
    """The records in events.jsonl, or `Malformed`."""
    raw = aws.get(EVENTS, b"")
    lines = raw.splitlines()
    if len(lines) > MOST_EVENTS:
        raise Malformed(f"{EVENTS} has {len(lines)} records; at most {MOST_EVENTS} are read")
    return [_event(parse(line)) for line in lines]


def logged(text: bytes) -> list[Event]:
    """The records in one log file's JSON, or `Malformed`."""
    said: Any = parse(text)
    records = said.get("Records") if isinstance(said, dict) else None
    if not isinstance(records, list) or len(records) > MOST_EVENTS:
        raise Malformed("a log file has no list of Records, or too many")
    return [_event(one) for one in records]


def about(events: Iterable[Event], predicate: Mapping[str, Any]) -> list[Event]:
    """Those that concern this run: carried its name, asked for its request ids, or touched something of it."""
    lease = predicate["run"]["id"]
    ids = {r["id"] for r in predicate["resources"] if "id" in r}
    requests = {request for _, request, _ in _required(predicate)}
    return [e for e in events if str(e.get("requestID")) in requests or _lease(e) == lease or ids & touched(e) or _token(e, lease)]


def compare(predicate: Mapping[str, Any], heads: Collection[str], events: Sequence[Event]) -> Compared:
    """Hold a statement against records. `heads` are the first 32 hex digits of every head that its journal ever had."""
    ours = about(events, predicate)
    found = Compared(len({str(e.get("eventID")) for e in ours}))
    by_request: dict[str, Event] = {}
    for event in ours:
        by_request.setdefault(str(event.get("requestID")), event)
    for name, request, machine in _required(predicate):
        there = by_request.get(request) if request else _naming(ours, name, machine)
        if there is None:
            found.missing.append((name, request or "none"))
        else:
            found.wrong += _differences(name, there, machine)
    found.wrong += [*_heads(ours, predicate["run"]["id"], heads), *_unmentioned(ours, predicate)]
    return found


def _required(predicate: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The calls that AWS must have recorded: name, request id ("" where none was kept), and the machine they are about."""
    for machine in predicate["instances"]:
        if "id" in machine:
            yield "RunInstances", machine["requestIds"].get("run", ""), machine
            yield "TerminateInstances", machine["requestIds"].get("terminate", ""), machine
    for anchor in predicate["anchors"]:
        if anchor["kind"] == "user-agent":
            yield "GetCallerIdentity", anchor.get("requestId", ""), {}


def _naming(events: Sequence[Event], name: str, machine: Mapping[str, Any]) -> Event | None:
    """A call whose answer was lost, or that somebody else made: by its token, else by the machine that it names."""
    for event in events:
        if event.get("eventName") == name and "errorCode" not in event:
            if name == "RunInstances" and machine.get("clientToken") and token_of(event) == machine["clientToken"]:
                return event
            if machine.get("id") in touched(event):
                return event
    return None


def _differences(name: str, event: Event, machine: Mapping[str, Any]) -> Iterator[Problem]:
    fleet = event.get("eventName") == BY_FLEET.get(name)
    if event.get("eventName") != name and not fleet:
        yield problem("E604", event=name, field="eventName", a=event.get("eventName", "nothing"), b=name)
        return
    if "errorCode" in event:
        yield problem("E604", event=name, field="errorCode", a=event["errorCode"], b="accepted")
    token = token_of(event)
    if name == "RunInstances" and token != machine.get("clientToken", token):
        yield problem("E604", event=name, field="clientToken", a=token or "nothing", b=machine["clientToken"])
    if machine and not fleet and machine["id"] not in touched(event):
        yield problem("E604", event=name, field="instanceId", a=", ".join(sorted(touched(event))) or "nothing", b=machine["id"])
    if machine and event.get("awsRegion") != machine.get("region", event.get("awsRegion")):
        yield problem("E604", event=name, field="awsRegion", a=event.get("awsRegion", "nothing"), b=machine["region"])
    yield from _times(name, event, machine)


def _times(name: str, event: Event, machine: Mapping[str, Any]) -> Iterator[Problem]:
    """A termination that the statement says was accepted, and by a call of ours, happened when AWS says it did."""
    at = milliseconds(event.get("eventTime"))
    if at is None:
        yield problem("E604", event=name, field="eventTime", a=event.get("eventTime", "nothing"), b="a time")
    elif name == "TerminateInstances" and "terminateAcceptedAt" in machine and "terminate" in machine["requestIds"]:
        stated = milliseconds(machine["terminateAcceptedAt"]) or 0
        if abs(at - stated) > SLACK_MS + machine.get("terminateAcceptedAtUncertaintyMs", 1000):
            yield problem("E604", event=name, field="eventTime", a=event["eventTime"], b=machine["terminateAcceptedAt"])


def _heads(events: Sequence[Event], lease: str, heads: Collection[str]) -> Iterator[Problem]:
    for event in events:
        said = [match[2] for match in HEAD.finditer(_agent(event)) if match[1] == lease]
        if (token := _token(event, lease)) is not None:
            said.append(token)
        for head in said:
            if head not in heads:
                yield problem("E605", h=head, time=event.get("eventTime", "an unknown time"), id=event.get("requestID", "none"))


def _unmentioned(events: Sequence[Event], predicate: Mapping[str, Any]) -> Iterator[Problem]:
    """Something that this run made, by AWS's record, and that the journal does not know."""
    known = {r["id"] for r in predicate["resources"] if "id" in r}
    for event in events:
        mine = _lease(event) == predicate["run"]["id"] or _token(event, predicate["run"]["id"]) is not None
        if mine and event.get("eventName") in MAKES and "errorCode" not in event:
            for id in sorted(made(event) - known):
                yield problem("E606", event=event["eventName"], id=id)


def token_of(event: Event) -> object:
    """The client token of a create; CreateFleet keeps its parameters one level deeper."""
    asked = _asked(event)
    inner = asked.get("CreateFleetRequest")
    return inner.get("ClientToken") if isinstance(inner, dict) else asked.get("clientToken")


def made(event: Event) -> set[str]:
    """What an accepted create answered with."""
    answer = event.get("responseElements")
    answer = answer if isinstance(answer, dict) else {}
    inner = answer.get("CreateFleetResponse")
    answer = inner if isinstance(inner, dict) else answer
    found = {one["instanceId"] for one in _items(answer) if isinstance(one.get("instanceId"), str)}
    return found | {answer[name] for name in ("groupId", "volumeId", "allocationId", "fleetId") if isinstance(answer.get(name), str)}


def touched(event: Event) -> set[str]:
    """The resources that a record names in what was asked or answered."""
    asked = _asked(event)
    found = {one["instanceId"] for one in _items(asked) if isinstance(one.get("instanceId"), str)}
    return made(event) | found | {asked[name] for name in ("groupId", "volumeId") if isinstance(asked.get(name), str)}


def _items(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    instances = holder.get("instancesSet")
    items = instances.get("items") if isinstance(instances, dict) else None
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def _asked(event: Event) -> dict[str, Any]:
    asked = event.get("requestParameters")
    return asked if isinstance(asked, dict) else {}


def _agent(event: Event) -> str:
    said = event.get("userAgent")
    return said[:2000] if isinstance(said, str) else ""


def _lease(event: Event) -> str:
    found = HEAD.search(_agent(event))
    return found[1] if found else ""


def _token(event: Event, lease: str) -> str | None:
    """The journal head in the client token of a create of this lease."""
    token = token_of(event)
    found = TOKEN.fullmatch(token) if isinstance(token, str) else None
    return found[2] if found and found[1] == lease[-8:] else None


def _event(value: Any) -> Event:
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("eventID", "eventName", "eventTime")):
        raise Malformed("a record of CloudTrail has no eventID, eventName or eventTime")
    return value
