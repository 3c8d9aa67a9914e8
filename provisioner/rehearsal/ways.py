"""The ways to a machine's port 22: by its address, through an Instance Connect endpoint, through Session Manager. SIMULATED.

What AWS decides about each is decided here: is the machine there, does a rule of its security groups let these packets in
(an address's, or those of the endpoint's group), is there an endpoint in its network, is it a managed node. What AWS then
carries through a web socket of its own is told as a port on loopback instead, and `aws.py` here, which stands for the
user's `aws` program, carries the bytes. So the program is rehearsed, and the way that AWS's bytes take is not.

A call here is an API call like any other: logged, refused by a policy, broken by a fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from provisioner.rehearsal import account, connect, engine, machines
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.supervisor import Hosts
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer

DOCUMENT = "AWS-StartSSHSession"
LONGEST_S = 3600  # AWS's own limit of a connection through an endpoint


class Ways:
    def __init__(self, lock: threading.RLock, plan: Plan, hosts: Hosts) -> None:
        self._lock, self._plan, self._hosts = lock, plan, hosts

    def by_address(self, query: str) -> dict[str, Any]:
        """Where an address and a port are on loopback; a Refusal as the network would have it."""
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        address, port = asked.get("address", ""), asked.get("port", "22")
        machine = self._find(lambda one: bool(address) and one.public_ip == address)
        if machine is None:
            raise Refusal("NoSuchAddress", f"no machine of the rehearsal has the address {address!r} now", 404)
        if not any(rule.ip_range for rule in _rules(machine, int(port) if port.isdigit() else 0)):
            raise Refusal("NotAllowed", f"no rule of {machine.id}'s security groups lets port {port} in", 403)
        return self._port(machine, port)

    def open_tunnel(self, call: Call) -> Reply:
        """Through an Instance Connect endpoint, by the machine's private address."""
        if call.action != "OpenTunnel":
            raise Refusal("UnsupportedOperation", f"the rehearsal has no ec2-instance-connect:{call.action}")
        id, address, port = (call.params.get(name, "") for name in ("instanceConnectEndpointId", "privateIpAddress", "remotePort"))
        seconds = call.params.get("maxTunnelDuration", str(LONGEST_S))
        if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST_S:
            raise Refusal("ValidationException", f"maxTunnelDuration is {seconds}; at most {LONGEST_S}")
        backend = engine.backend(call.region)
        there = connect.here(self._plan, call.region, backend)
        if there is None or there["instanceConnectEndpointId"] != id or there["state"] != "create-complete":
            raise Refusal("ResourceNotFoundException", f"The instance connect endpoint {id} does not exist or is not available", 404)
        machine = self._find(lambda one: one.private_ip == address and one.vpc_id == there["vpcId"], call.region)
        groups = set(connect.groups(there))
        if machine is None or not any(rule.source_group.get("GroupId") in groups for rule in _rules(machine, int(port or 0))):
            # Packets that a group drops and an address that nobody has look alike from outside.
            raise Refusal("TunnelTimeout", f"the endpoint reached nobody at {address}:{port}", 504)
        return json_answer({**self._port(machine, port), "seconds": min(int(seconds), self._plan.timing.tunnel_s)})

    def ssm(self, call: Call) -> Reply:
        if call.action != "StartSession":
            return account.ssm(call)
        target, document = call.params.get("Target", ""), call.params.get("DocumentName", "")
        port = str(next(iter((call.document.get("Parameters") or {}).get("portNumber", ["22"]))))
        if document != DOCUMENT:
            raise Refusal("InvalidDocument", f"the rehearsal has the session document {DOCUMENT} only, not {document!r}")
        machine = self._find(lambda one: one.id == target, call.region)
        if machine is None or not self._plan.world.session_manager or self._hosts.port(machine.id) is None:
            raise Refusal("TargetNotConnected", f"{target} is not connected.")
        return json_answer(self._port(machine, port))

    def _find(self, fits: Callable[[Any], bool], *regions: str) -> Any:
        with self._lock:
            everything = (one for region in regions or engine.regions() for one in machines.machines(engine.backend(region)))
            return next((one for one in everything if fits(one) and one.state in ("pending", "running")), None)

    def _port(self, machine: Any, port: str) -> dict[str, Any]:
        if machine.reach == "impaired" or port != "22":
            raise Refusal("Refused", f"nothing answers on port {port} of {machine.id}", 410)
        there = self._hosts.port(machine.id)
        if there is None:
            raise Refusal("NotBooted", f"{machine.id} has not booted yet", 409)
        return {"host": "127.0.0.1", "port": there, "instance": machine.id}


def _rules(machine: Any, port: int) -> Iterator[Any]:
    """The rules of its groups that are about this port, whoever they let in."""
    for group in machine.security_groups:
        for rule in group.ingress_rules:
            ports = (int(rule.from_port or -1), int(rule.to_port or -1))
            if str(rule.ip_protocol) == "-1" or (rule.ip_protocol == "tcp" and ports[0] <= port <= ports[1]):
                yield rule
