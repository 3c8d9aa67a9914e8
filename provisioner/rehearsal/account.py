"""Who we are, what the parameter store says, and whether there is a role for fleets: small questions asked before any machine.

They are answered here because moto's STS and SSM would each cost a fifth of a second to import, and because moto knows neither
the deep learning image's parameter nor the roles that AWS makes itself. Every other call to these services goes to moto.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote
from xml.sax.saxutils import escape

from provisioner.rehearsal import denial, engine, machines
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer, query_answer

ARN = f"arn:aws:iam::{engine.ACCOUNT}:user/rehearsal"


def sts(call: Call) -> Reply:
    if call.action == "DecodeAuthorizationMessage":
        told = json.dumps(denial.decode(call.params.get("EncodedMessage", "")))
        return query_answer(call, f"<DecodedMessage>{escape(told)}</DecodedMessage>")
    if call.action != "GetCallerIdentity":
        return engine.ask(call)
    return query_answer(call, f"<Arn>{ARN}</Arn><UserId>AIDAREHEARSALREHEARSAL</UserId><Account>{engine.ACCOUNT}</Account>")


def iam(plan: Plan) -> Callable[[Call], Reply]:
    def answer(call: Call) -> Reply:
        if call.action != "GetRole" or call.params.get("RoleName") != engine.FLEET_ROLE or not plan.world.fleet_role:
            return engine.ask(call)
        trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2fleet.amazonaws.com"},'
        trust += '"Action":"sts:AssumeRole"}]}'
        return query_answer(
            call,
            f"<Role><Path>{engine.FLEET_PATH}</Path><RoleName>{engine.FLEET_ROLE}</RoleName><RoleId>AROAREHEARSALREHEARSAL</RoleId>"
            f"<Arn>arn:aws:iam::{engine.ACCOUNT}:role{engine.FLEET_PATH}{engine.FLEET_ROLE}</Arn><CreateDate>2026-01-01T00:00:00Z</CreateDate>"
            f"<AssumeRolePolicyDocument>{quote(trust)}</AssumeRolePolicyDocument></Role>",
        )

    return answer


def ssm(call: Call) -> Reply:
    if call.action == "GetParameter" and (name := call.params.get("Name", "")).startswith("/aws/service/"):
        if (found := _parameter(name, call.region)) is None:
            raise Refusal("ParameterNotFound", f"Parameter {name} not found.")
        return json_answer({"Parameter": found})
    if call.action == "GetParameters":
        names = [str(name) for name in call.document.get("Names", [])]
        if all(name.startswith("/aws/service/") for name in names):
            found_all = {name: _parameter(name, call.region) for name in names}
            return json_answer(
                {
                    "Parameters": [one for one in found_all.values() if one],
                    "InvalidParameters": [name for name, one in found_all.items() if not one],
                }
            )
    return engine.ask(call)


def _parameter(name: str, region: str) -> dict[str, object] | None:
    if name != machines.IMAGE_PARAMETER and not name.startswith("/aws/service/canonical/ubuntu/server/24.04/"):
        return None  # the one image here is an Ubuntu 24.04, whichever way it is asked for
    engine.backend(region)  # refuses a region that does not exist
    return {
        "Name": name,
        "Type": "String",
        "Value": machines.image_id(region),
        "Version": 1,
        "LastModifiedDate": float(int(time.time())),
        "ARN": f"arn:aws:ssm:{region}::parameter{name}",
        "DataType": "aws:ec2:image",
    }
