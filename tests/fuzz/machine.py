"""What the rented machine, its server, its model and the cloud's lists say, each read by what reads it in a run.

As in `targets`: refused in the reader's own words, or taken for something that can be written down and shown.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provisioner import clean, measure
from provisioner.errors import GpuleaseError, ProviderError
from provisioner.evals import cases, samples, score, stats
from provisioner.evidence import canonical
from provisioner.providers import aws_prices
from provisioner.remote import bootstrap, spot
from provisioner.remote.facts import FACTS, FactUnreadable
from provisioner.runtimes import get
from tests.evals.made import sample
from tests.runtimes import test_diagnose

TESTS = Path(__file__).parents[1]
DEADLINE = json.loads((TESTS / "remote/armed/debian12-systemd252.json").read_text())["deadline"]
NAMES = sorted(FACTS)
"""Of which fact an input is the answer is said by its first byte."""


def of_facts(data: bytes) -> None:
    if not data:
        return
    try:
        fact = FACTS[NAMES[data[0] % len(NAMES)]].parse(data[1:].decode("utf-8", "replace"))
    except FactUnreadable as e:
        told(e)
        return
    assert canonical.loads(canonical.dumps(fact)) == fact, "the journal would not take it"
    for text in texts(fact):
        shown(text)


def of_armed(data: bytes) -> None:
    """No text makes guards stand whose deadline is another one."""
    seen = bootstrap.parse_armed(data.decode("utf-8", "replace"), DEADLINE)
    assert not seen.good or (seen.deadline == DEADLINE and all(unit.encode() in data for unit in bootstrap.GUARD_UNITS))


def of_server_log(data: bytes) -> None:
    log = data.decode("utf-8", "replace")
    for runtime in (get("vllm"), get("sglang")):
        figures = runtime.figures(log)
        assert canonical.loads(canonical.dumps(figures)) == figures, "the journal would not take it"
        if found := runtime.diagnose(log):
            for text in (found.what, found.why, found.next):
                shown(text)


def of_samples(data: bytes) -> None:
    """What the client says that it measured is scored, counted and written; and read again it is the same."""
    heard = samples.Samples("host")
    for line in data.decode("utf-8", "replace").splitlines()[:40]:
        heard.feed(line)
    scored = score.scores(smoke().cases, heard.samples)
    settled = samples.settled(samples.joined([heard]))
    figures = stats.figures(settled, scored, cases=smoke().cases, objectives={"ttft": 1_000_000})
    shown(measure.summary(figures))
    measure.dump({"scores": [one.public() for one in scored], "stats": figures, "client": heard.header, "whole": heard.whole})
    assert samples.read(json.dumps(one.public()) for one in heard.samples) == heard.samples


def of_score(data: bytes) -> None:
    """A model's answer, by every check of the shipped set."""
    text = data.decode("utf-8", "replace")
    for case in smoke().cases:
        for one in case.checks:
            measure.dump(score.check(text, one).public())


def of_price(data: bytes) -> None:
    """A product of AWS's price list. One that is about another machine has no rate."""
    wanted = {"instanceType": "g6.xlarge", "regionCode": "us-east-1"}
    try:
        found = aws_prices.rates(data.decode("utf-8", "replace"), wanted, "Hrs")
    except ProviderError as e:
        told(e)
        return
    assert all(rate >= 0 for rate in found)
    if found:
        about = json.loads(data.decode("utf-8", "replace"))["product"]
        assert wanted.items() <= {**about, **about["attributes"]}.items()


def of_spot_notice(data: bytes) -> None:
    try:
        said = spot.notice(data.decode("utf-8", "replace"))
    except FactUnreadable as e:
        told(e)
        return
    assert said.action in spot.ACTIONS


@functools.cache
def smoke() -> cases.EvalSet:
    return cases.load("smoke")


def told(error: GpuleaseError) -> None:
    for text in (error.what, error.why):
        shown(text)


def shown(text: str) -> None:
    """It goes to the terminal as it is, or cleaned once more; that must change nothing."""
    assert clean.clean(text) == text, ascii(text)


def texts(value: Any) -> Iterable[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, one in value.items():
                yield from (name, *texts(one))
        case list():
            for one in value:
                yield from texts(one)


def seeds(name: str) -> Iterable[bytes]:
    match name:
        case "facts":
            for place, fact in enumerate(NAMES):
                for path in sorted((TESTS / "facts" / fact).glob("*.json")):
                    if len(said := json.loads(path.read_text())["output"].encode()) < 3000:
                        yield bytes([place]) + said
        case "armed":
            for path in sorted((TESTS / "remote/armed").glob("*.json")):
                yield json.loads(path.read_text())["stdout"].encode()
        case "server_log":
            for text, *_ in (*test_diagnose.VLLM.values(), *test_diagnose.BOTH.values(), *test_diagnose.SGLANG.values()):
                yield text.encode()
            yield from (test_diagnose.VLLM_LOG.encode(), test_diagnose.SGLANG_LOG.encode())
        case "samples":
            made = (sample(), sample(error="timeout: none", ttft=0), sample(gaps=(0, 1), tokens=None, n=1))
            ends = {"header": {"python": "3", "limits": {"a": 1}}}, {"footer": {"sent": 3, "planned": 3, "stopped": None}}
            yield b"\n".join(json.dumps(line).encode() for line in (ends[0], *(one.public() for one in made), ends[1]))
        case "score":
            for one in json.loads((TESTS / "evals/smoke_answers.json").read_text()).values():
                yield from (text.encode() for text in texts(one))
        case "price":
            attributes = {"instanceType": "g6.xlarge", "regionCode": "us-east-1", "usagetype": "BoxUsage:g6.xlarge"}
            terms = {"OnDemand": {"t": {"priceDimensions": {"r": {"unit": "Hrs", "pricePerUnit": {"USD": "0.8048000000"}}}}}}
            yield json.dumps({"product": {"attributes": attributes, "productFamily": "Compute Instance"}, "terms": terms}).encode()
        case "spot_notice":
            yield b'{"action": "terminate", "time": "2026-11-25T08:22:00Z"}'
