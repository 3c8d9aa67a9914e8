"""What must not be seen cannot be shown by accident, and everything of the kind that the code holds is of that type."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cost import Price
from provisioner.model import LaunchSpec, Offer
from provisioner.secret import Secret, environment

ONE = Secret("canary-4711")

WAYS: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda s: f"{s}",
    "format with a width": lambda s: f"{s:>20}",
    "percent": lambda s: "%s" % (s,),  # noqa: UP031  this is the way that is meant
    "percent r": lambda s: "%r" % (s,),  # noqa: UP031
    "str.format": lambda s: "{}".format(s),  # noqa: UP032
    "join": lambda s: "".join([s]),
    "plus": lambda s: "key " + s,
    "a list's repr": lambda s: repr([s]),
    "a dataclass's repr": lambda s: repr(dataclasses.make_dataclass("D", ["key"])(s)),
    "json": json.dumps,
    "json with str": lambda s: json.dumps(s, default=str),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "bytes": bytes,
    "iterating": list,
    "an attribute dump": vars,
    "encode": lambda s: s.encode(),
    "asdict": lambda s: dataclasses.asdict(dataclasses.make_dataclass("D", ["key"])(s)),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_not_shown(way: str) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        WAYS[way](ONE)
    assert "canary" not in str(caught.value)


def test_neither_a_log_nor_a_traceback_with_its_locals_gives_it_away(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(key: Secret) -> None:
        raise ValueError("something else")

    try:
        fails(ONE)
    except ValueError as e:
        try:  # Python 3.12 writes that the repr failed; before, the reader of locals fails itself
            told = "".join(traceback.TracebackException.from_exception(e, capture_locals=True).format())
        except TypeError as refused:
            told = str(refused)
    assert "canary" not in told and told
    log = logging.Logger("test")
    log.addHandler(logging.StreamHandler())
    log.error("the key is %s", ONE)
    out, err = capsys.readouterr()
    assert "canary-4711" not in out + err


def test_it_is_given_out_where_it_is_asked_for_and_compared_without_that() -> None:
    assert ONE.reveal() == "canary-4711" and ONE.reveal_bytes() == b"canary-4711"
    assert Secret("canary-4711") == ONE != Secret("canary-4712") and ONE != "canary-4711"
    assert ONE and not Secret("") and len({ONE, Secret("canary-4711"), Secret("x")}) == 2
    assert ONE.hidden("a canary-4711 b") == "a [secret] b" and Secret("").hidden("a") == "a"


def test_a_launch_that_holds_a_host_key_is_asked_for_and_not_shown() -> None:
    spec = LaunchSpec(Offer("p", "r", "t", "L4", 1, None, 4, Price(1, "s", "2026-11-21")), 60, "d", user_data=Secret("canary-4711"))
    for way in (pickle.dumps, copy.deepcopy, dataclasses.asdict, dataclasses.astuple, lambda s: json.dumps(vars(s), default=str)):
        with pytest.raises(TypeError):
            way(spec)
    assert "canary" not in repr(spec) + str(spec.public())


def test_what_is_started_here_is_not_given_the_hubs_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert "hf_canary" not in environment().values() and environment()["AWS_PROFILE"] == "mine"


def test_every_field_and_argument_that_is_named_like_a_secret_is_one() -> None:
    """Of the code that ships, but for the simulated cloud, whose keys open nothing."""
    root = Path(__file__).parents[2] / "provisioner"
    wanted = {"api_key", "hf_token", "host_private", "password", "passphrase", "private_key", "user_data"}
    found = 0
    for path in root.rglob("*.py"):
        if "rehearsal" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name, kind = (
                (node.target.id, node.annotation)
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
                else (node.arg, node.annotation)
                if isinstance(node, ast.arg)
                else ("", None)
            )
            if name in wanted:
                found += 1
                assert kind is not None and "Secret" in ast.unparse(kind), f"{path}:{node.lineno} {name}"
    assert found >= 5
