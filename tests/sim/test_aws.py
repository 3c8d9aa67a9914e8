"""The simulated AWS speaks AWS: what it is asked and what it answers fits botocore's own service models."""

from __future__ import annotations

import base64
from datetime import datetime
from functools import cache
from typing import Any

import rfc8785
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from provisioner import journal
from tests.sim.checks import findings
from tests.sim.install import Canonical, simulated
from tests.sim.play import History, play
from tests.sim.scenarios import scenarios
from tests.sim.script import AWS, CORE, draw

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (datetime,),
    "blob": (bytes,),
}


@cache
def model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def misfits(shape: Any, value: Any, where: str) -> list[str]:
    """Where an answer is not what botocore would have made of AWS's."""
    match shape.type_name:
        case "structure":
            if not isinstance(value, dict):
                # A policy travels as encoded JSON; botocore's clients hand it out decoded.
                return [f"{where} is {type(value).__name__}"]
            wrong = [f"{where}.{key} is unknown" for key in value if key not in shape.members]
            return wrong + [m for key, v in value.items() if key in shape.members for m in misfits(shape.members[key], v, f"{where}.{key}")]
        case "list":
            return [m for n, v in enumerate(value) for m in misfits(shape.member, v, f"{where}[{n}]")]
        case kind:
            decoded = where.endswith("Document") and isinstance(value, dict)
            return [] if decoded or isinstance(value, KINDS[kind]) else [f"{where} is {type(value).__name__}, not {kind}"]


def test_requests_and_answers_fit_botocores_models() -> None:
    wrong: dict[str, None] = {}
    seen: set[str] = set()

    def validate(service: str, operation: str, params: dict[str, Any], data: Any) -> None:
        asked = model(service).operation_model(operation)
        seen.add(operation)
        if "UserData" in params:  # botocore encodes it before it looks
            params = {**params, "UserData": base64.b64encode(params["UserData"].encode()).decode()}
        report = ParamValidator().validate(params, asked.input_shape) if asked.input_shape else None
        if report is not None and report.has_errors():
            wrong[f"{operation}: {report.generate_report()}"] = None
        wrong.update(dict.fromkeys(misfits(asked.output_shape, data, operation) if asked.output_shape else []))

    def prepare(history: History) -> None:
        history.network.validate = validate

    with simulated():
        for script in [*scenarios(AWS), *(draw(seed, AWS) for seed in range(500_000, 500_040))]:
            assert not findings(play(script, prepare=prepare))
    assert not wrong, "\n".join(wrong)
    assert {"RunInstances", "TerminateInstances", "CreateSchedule", "DescribeSpotInstanceRequests", "DeleteVolume"} <= seen


def test_the_fast_writer_of_lines_is_the_slow_one() -> None:
    lines = 0
    with simulated():
        for level in (CORE, AWS):
            for script in scenarios(level):
                history = play(script)
                for computer in (history.laptop, history.other):
                    for path in _journals(computer):
                        for line in path.splitlines():
                            entry = journal.json.loads(line)
                            assert rfc8785.dumps(entry) == Canonical.dumps(entry) == line
                            lines += 1
    assert lines > 500


def _journals(computer: Any) -> list[bytes]:
    runs = computer.disk.folder(("state", "runs")).children or {}
    folders = [folder.children or {} for folder in runs.values()]
    return [bytes(inode.data) for names in folders for name, inode in names.items() if name == "journal.jsonl"]


def test_a_history_is_the_same_each_time_it_is_played() -> None:
    with simulated():
        for seed in range(700_000, 700_020):
            one, other = play(draw(seed, AWS)), play(draw(seed, AWS))
            assert [c.__dict__ for c in one.claims] == [c.__dict__ for c in other.claims] and one.steps == other.steps
