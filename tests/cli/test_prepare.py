"""`gpulease init aws` and `gpulease iam policy`, as a user starts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provisioner.cli import app
from provisioner.rehearsal import client
from provisioner.rehearsal.client import Rehearsal


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Rehearsal]:
    made = client.start(tmp_path / "cloud", idle_exit=900)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def init(cloud: Rehearsal, *words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--json", *words])
    return done.exit_code, json.loads(done.stdout)


def test_init_makes_what_is_missing_does_nothing_twice_and_undoes_it(cloud: Rehearsal) -> None:
    code, first = init(cloud, "--yes", "--region", "us-east-1", "--region", "us-west-2")
    assert code == 0 and first["simulated"] and len(first["changed"]) == 6
    assert {piece["state"] for piece in first["pieces"]} == {"there"}
    code, again = init(cloud, "--yes", "--region", "us-east-1")
    assert code == 0 and again["changed"] == []
    code, half = init(cloud, "--yes", "--remove", "--region", "us-west-2")
    assert code == 0 and len(half["changed"]) == 2, "the role stays while another region uses it"
    code, rest = init(cloud, "--yes", "--remove")
    assert code == 0 and {piece["state"] for piece in rest["pieces"]} == {"missing"}
    assert init(cloud, "--yes", "--remove")[1]["changed"] == []


def test_init_shows_what_it_would_make_and_that_it_costs_nothing(cloud: Rehearsal) -> None:
    done = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--yes"])
    for words in ("to make", "role gpulease-scheduler", "schedule group", "queue", "costs nothing", "SIMULATED"):
        assert " ".join(words.split()) in " ".join((done.stdout + done.stderr).split())
    assert "nothing to make: all of it is there" in CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--yes"]).stdout


def test_a_policy_is_json_and_an_unknown_one_is_a_mistake() -> None:
    done = CliRunner().invoke(app, ["iam", "policy", "runner", "--type", "g6.*", "--region", "eu-west-1", "--account", "210987654321"])
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and said["Version"] == "2012-10-17"
    assert "210987654321" in done.stdout and "g6.*" in done.stdout and "eu-west-1" in done.stdout
    assert CliRunner().invoke(app, ["iam", "policy", "admin"]).exit_code == 2
