"""Stands for the user's `aws` program in a rehearsal of a machine that no address may reach. SIMULATED; run by its path.

It takes the words that `remote/through.py` gives the real one, asks what the real one asks (which machine, which endpoint,
then a tunnel or a session), says no in its words and with its exit codes, and carries the bytes between its stdin and
stdout and the port on loopback that it was told. Not rehearsed by this: AWS's web sockets, their TLS, and the program.

    python provisioner/rehearsal/aws.py http://127.0.0.1:5555 ec2-instance-connect open-tunnel --instance-id i-… …

Stdlib only, and nothing of gpulease: it is another program.
"""

import json
import os
import re
import socket
import sys
import threading
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

REFUSED, UNUSABLE = 254, 255  # the exit codes of the real one: AWS said no; it could not ask
OPENER = build_opener(ProxyHandler({}))


def main(endpoint: str, words: list[str]) -> int:
    service, verb, rest = words[0], words[1], words[2:]
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    region = options["--region"]

    def ask(service: str, action: str, path: str = "/", body: bytes | None = None, **headers: str) -> str:
        scope = f"AWS4-HMAC-SHA256 Credential=AKIAREHEARSAL/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        sent = Request(endpoint + path, data=body, headers={"Authorization": scope, "User-Agent": "rehearsed-aws", **headers})
        try:
            with OPENER.open(sent, timeout=30) as answer:
                return str(answer.read().decode())
        except HTTPError as e:
            with e:
                said = e.read().decode("utf-8", "replace")
            code = re.search(r'<Code>([^<]+)|"__type": "([^"]+)', said)
            message = re.search(r'<Message>([^<]+)|"message": "([^"]+)', said)
            fields = [next(filter(None, found.groups()), "") if found else "" for found in (code, message)]
            print(f"\nAn error occurred ({fields[0]}) when calling the {action} operation: {fields[1]}", file=sys.stderr)
            raise SystemExit(REFUSED) from e
        except (URLError, OSError) as e:
            print(f"\nCould not connect to the endpoint URL: {endpoint}/ ({e})", file=sys.stderr)
            raise SystemExit(UNUSABLE) from e

    def ec2(action: str, **fields: str) -> str:
        form = urlencode({"Action": action, "Version": "2016-11-15", **fields}).encode()
        return ask("ec2", action, body=form, **{"Content-Type": "application/x-www-form-urlencoded"})

    if (service, verb) == ("ec2-instance-connect", "open-tunnel"):
        machine = ec2("DescribeInstances", **{"InstanceId.1": options["--instance-id"]})
        vpc, address = _tag(machine, "vpcId"), _tag(machine, "privateIpAddress")
        wanted = {"Filter.1.Name": "vpc-id", "Filter.1.Value.1": vpc, "Filter.2.Name": "state", "Filter.2.Value.1": "create-complete"}
        id = _tag(ec2("DescribeInstanceConnectEndpoints", **wanted), "instanceConnectEndpointId")
        if not id:
            print(f"\nThere are no available instance connect endpoints in {vpc}", file=sys.stderr)
            return UNUSABLE
        asked = {"instanceConnectEndpointId": id, "remotePort": options["--remote-port"], "privateIpAddress": address}
        told = json.loads(ask("ec2-instance-connect", "OpenTunnel", f"/openTunnel?{urlencode(asked)}"))
    elif (service, verb) == ("ssm", "start-session"):
        name, _, value = options["--parameters"].partition("=")
        document = {"Target": options["--target"], "DocumentName": options["--document-name"], "Parameters": {name: [value]}}
        kind = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonSSM.StartSession"}
        told = json.loads(ask("ssm", "StartSession", body=json.dumps(document).encode(), **kind))
    else:
        print(f"aws: error: argument command: Invalid choice: {service} {verb}", file=sys.stderr)
        return 252
    return carry(str(told["host"]), int(told["port"]), told.get("seconds"))


def carry(host: str, port: int, seconds: float | None) -> int:
    """Bytes both ways, until one side ends or the time that a tunnel has is over."""
    try:
        far = socket.create_connection((host, port), timeout=10)
    except OSError as e:
        print(f"\nthe tunnel was closed: {e}", file=sys.stderr)
        return UNUSABLE
    far.settimeout(None)
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def down() -> None:
        try:
            while data := far.recv(65536):
                view = memoryview(data)
                while view:
                    view = view[os.write(1, view) :]
        except OSError:
            pass  # either side is gone, and so are we
        os._exit(0)

    def over() -> None:
        print(f"\nthe tunnel was closed after {seconds:g} s", file=sys.stderr, flush=True)
        os._exit(UNUSABLE)

    threading.Thread(target=down, daemon=True).start()
    if seconds is not None:
        timer = threading.Timer(seconds, over)
        timer.daemon = True
        timer.start()
    try:
        while data := os.read(0, 65536):
            far.sendall(data)
    except OSError:
        pass
    return 0


def _tag(xml: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]+)</{name}>", xml)
    return found[1] if found else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
