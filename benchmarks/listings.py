"""A server of listings for benchmarks/reap.py: many machines in many regions, as pages that were made before the clock starts.

The rehearsal's endpoint renders one real lease (machine, disk, interface, security group, all tagged; the machine is a
stand-in) and one answer of every other listing that a look asks for. Here those answers are multiplied: each machine has
ids, addresses and a lease of its own, and is in its region; nothing else of the XML is changed. Served are pages of as many
as MaxResults asks for, with a NextToken until the last. A listing without the filter by our tag, with a token that is not ours or of
a region that does not exist is refused, so a client that asks for the wrong thing cannot look quick.

What is not simulated: the network, TLS, throttling, and EC2's own time, except as `--answer-ms` before each answer.

    python benchmarks/listings.py --machines 1000 --answer-ms 0 us-east-1 us-west-2      prints its port; ends with its stdin
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STANDIN = f"{sys.executable} -I -S {ROOT / 'tests' / 'rehearsal_endpoint' / 'standin_host.py'}"
LEASE, REGION = "r-20261121t140000z-00000000", "us-east-1"
SCOPE = re.compile(r"Credential=[^/]*/\d*/([a-z0-9-]+)/([a-z0-9-]+)/")


@dataclass(frozen=True)
class Recorded:
    """One answer of the endpoint: what stands before its items, one item, what stands after. No item: the same for everybody."""

    status: int
    kind: str
    head: str
    item: str = ""
    tail: str = ""


def recorded() -> dict[str, Recorded]:
    """One lease made in a rehearsal, and what the endpoint then answers to each listing of a look, by operation."""
    from provisioner.model import LaunchSpec, Requirements, Resource
    from provisioner.providers.aws import AwsProvider
    from provisioner.providers.aws_inventory import MADE, OTHER
    from provisioner.rehearsal import client

    with tempfile.TemporaryDirectory() as folder:
        cloud = client.start(
            Path(folder) / "cloud", idle_exit=60, faults=[{"timing": {"pending_s": 0.0}}], host_command=STANDIN, timeout=60
        )
        try:
            aws = AwsProvider(REGION, endpoint=cloud.endpoint)
            offer = aws.offers(Requirements(gpu="L4", gpus=1))[0]
            spec = LaunchSpec(offer, 60, "2026-01-01T00:00:00Z", b"{}", ingress_cidr="203.0.113.7/32")
            made: dict[str, Resource] = {}
            for number, kind in enumerate(aws.steps(spec)):
                made[kind] = aws.create(kind, spec, lease=LEASE, token=f"00000000-{number}-{'0' * 32}", made=made)
            ours = "&Filter.1.Name=tag%3Agpulease%3Alease&Filter.1.Value.1=" + LEASE
            found = {kind.list_call: _recorded(cloud.endpoint, kind.list_call, ours, items=True) for kind in MADE}
            found |= {kind.list_call: _recorded(cloud.endpoint, kind.list_call) for kind in OTHER}
            return found | {"ListSchedules": _recorded(cloud.endpoint, "ListSchedules")}
        finally:
            cloud.stop()


def _recorded(endpoint: str, operation: str, more: str = "", items: bool = False) -> Recorded:
    service = "scheduler" if operation == "ListSchedules" else "ec2"
    signed = f"AWS4-HMAC-SHA256 Credential=a/20261121/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=a"
    data = None if service == "scheduler" else f"Action={operation}&Version=2016-11-15{more}".encode()
    url = endpoint + ("/schedules?ScheduleGroup=gpulease" if data is None else "/")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Authorization": signed})) as answer:
            status, kind, body = answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as e:
        status, kind, body = e.code, e.headers["Content-Type"], e.read().decode()
    if not items:
        return Recorded(status, kind, body)
    head, item, tail = re.fullmatch(r"(.*?Response[^>]*><\w+(?:Set|Info)>)(<item>.*</item>)(</\w+>.*)", body, re.S).groups()  # type: ignore[union-attr]
    return Recorded(status, kind, head, item, tail)


class Listings:
    """Every page of every region, made on the first request for it or by `fill`, and kept."""

    def __init__(self, regions: list[str], machines: int) -> None:
        self.regions, self.machines, self.answers = regions, machines, recorded()
        self._items = {name: self._templates(one.item) for name, one in self.answers.items() if one.item}
        self._pages: dict[tuple[str, str, int, int], tuple[int, str, bytes]] = {}

    def _templates(self, item: str) -> str:
        """The one item with its marks of identity taken out: `@I` stands for 17 hexadecimal digits, `@L` for a lease's eight, and so on."""
        item = re.sub(r"\b((?:i|vol|eni|eni-attach|sg|r)-)[0-9a-f]{17}\b", r"\1@I", item)
        item = item.replace(LEASE, LEASE[:-8] + "@L").replace("ip-172-31-0-4", "ip-172-31-@D").replace("172.31.0.4", "172.31.@A")
        return item.replace("ip-203-0-113-1.", "ip-203-0-@D.").replace("203.0.113.1<", "203.0.@A<").replace(REGION, "@R")

    def fill(self, size: int) -> None:
        for region in self.regions:
            for name, one in self.answers.items():
                for start in range(0, max(self.machines, 1) if one.item else 1, size):
                    self.page(region, name, start, size)

    def page(self, region: str, operation: str, start: int, size: int) -> tuple[int, str, bytes]:
        key = (region, operation, start, size)
        if key not in self._pages:
            one = self.answers[operation]
            text = one.head + one.tail
            if one.item:
                end = min(start + size, self.machines)
                more = f"<nextToken>{end}</nextToken>" if end < self.machines else ""
                items = "".join(self._item(operation, region, n) for n in range(start, end))
                closing, rest = one.tail.split(">", 1)
                text = f"{one.head}{items}{closing}>{more}{rest}"
            self._pages[key] = (one.status, one.kind, text.replace(REGION, region).encode())
        return self._pages[key]

    def _item(self, operation: str, region: str, n: int) -> str:
        number = self.regions.index(region) * self.machines + n
        text = self._items[operation].replace("@I", f"{number:017x}").replace("@L", f"{number:08d}").replace("@R", region)
        return text.replace("@A", f"{n // 250}.{n % 250 + 4}").replace("@D", f"{n // 250}-{n % 250 + 4}")

    def answer(self, path: str, headers: str, body: str) -> tuple[int, str, bytes]:
        region, service = SCOPE.search(headers).groups()  # type: ignore[union-attr]
        if region not in self.regions:
            return _refusal("InvalidRegion", region)
        if service == "scheduler":
            return self.page(region, "ListSchedules", 0, 1)
        said = {key: values[0] for key, values in parse_qs(body).items()}
        operation, size = said["Action"], int(said.get("MaxResults", 1000))
        if operation not in self.answers:
            return _refusal("InvalidAction", operation)
        if self.answers[operation].item and (said.get("Filter.1.Name"), said.get("Filter.1.Value.1")) != ("tag:gpulease:managed", "true"):
            return _refusal("InvalidParameterValue", "this cloud only lists what is ours")
        if not 5 <= size <= 1000:
            return _refusal("InvalidParameterValue", f"MaxResults {size}")
        return self.page(region, operation, int(said.get("NextToken", 0)), size)


def _refusal(code: str, words: str) -> tuple[int, str, bytes]:
    text = f"<Response><Errors><Error><Code>{code}</Code><Message>{words}</Message></Error></Errors><RequestID>x</RequestID></Response>"
    return 400, "text/xml", text.encode()


async def serve(listings: Listings, answer_ms: int) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_close = (asyncio.IncompleteReadError, ConnectionError)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)^content-length: (\d+)", head, re.M)
                body = await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(answer_ms / 1000)
                status, kind, data = listings.answer(urlsplit(head.split(" ", 2)[1]).path, head, body.decode())
                said = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nx-amzn-requestid: {uuid.uuid4()}\r\n"
                writer.write(f"{said}Date: {email.utils.formatdate(usegmt=True)}\r\n\r\n".encode() + data)
                await writer.drain()
        except with_close:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended: Any = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await ended
    os._exit(0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("regions", nargs="+")
    options.add_argument("--machines", type=int, default=1000)
    options.add_argument("--answer-ms", type=int, default=0)
    options.add_argument("--page", type=int, default=200)
    asked = options.parse_args()
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    listings = Listings(asked.regions, asked.machines)
    listings.fill(asked.page)
    asyncio.run(serve(listings, asked.answer_ms))


if __name__ == "__main__":
    main()
