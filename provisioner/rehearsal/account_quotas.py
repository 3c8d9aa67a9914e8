"""Service Quotas, as far as EC2's vCPUs go: it tells the same limits that the rehearsal's launches are held to. SIMULATED."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provisioner.rehearsal import engine
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.limits import QUOTAS, Quota
from provisioner.rehearsal.wire import Call, Refusal, Reply, json_answer


def service(plan: Plan) -> Callable[[Call], Reply]:
    def answer(call: Call) -> Reply:
        if call.document.get("ServiceCode") != "ec2":
            raise Refusal("NoSuchResourceException", "the rehearsal has quotas of the service ec2 only")
        if call.action == "GetServiceQuota":
            code = call.document.get("QuotaCode")
            found = next((quota for quota in QUOTAS if quota.code == code), None)
            if found is None:
                raise Refusal("NoSuchResourceException", "The request failed because the specified quota does not exist.")
            return json_answer({"Quota": _told(found, call, plan)})
        if call.action == "ListServiceQuotas":
            return json_answer({"Quotas": [_told(quota, call, plan) for quota in QUOTAS]})
        raise Refusal("UnsupportedOperation", f"the rehearsal has no servicequotas:{call.action}")

    return answer


def _told(quota: Quota, call: Call, plan: Plan) -> dict[str, Any]:
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{call.region}:{engine.ACCOUNT}:ec2/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": plan.world.limits.value(call.region, quota.code),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
