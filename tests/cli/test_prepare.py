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


def test_the_plan_of_a_removal_is_what_is_removed_and_says_why_the_role_stays(cloud: Rehearsal) -> None:
    init(cloud, "--yes", "--region", "us-east-1", "--region", "us-west-2")
    done = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--remove", "--region", "us-west-2"])
    lines = [line.split() for line in done.stderr.splitlines()]
    assert [line[:2] for line in lines if line[:2] == ["to", "remove"]] == [["to", "remove"]] * 2, done.stderr
    stays = [" ".join(line) for line in lines if line[:1] == ["stays"]]
    assert len(stays) == 2 and all("us-east-1 still uses it" in line for line in stays), done.stderr
    assert done.exit_code == 2 and "there is no terminal to ask on" in done.stderr
    nothing = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--remove", "--region", "eu-west-1"])
    assert nothing.exit_code == 0 and "nothing to remove: the role stays, us-east-1, us-west-2 still use it" in nothing.stdout
    code, rest = init(cloud, "--yes", "--remove", "--region", "eu-west-1")
    assert code == 0 and rest["changed"] == [] and [p["state"] for p in rest["pieces"] if not p["region"]] == ["there", "there"]


def test_where_nobody_can_be_asked_the_plan_is_shown_and_nothing_is_changed(cloud: Rehearsal) -> None:
    done = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint])
    assert done.exit_code == 2 and "to make" in done.stderr and "add --yes" in done.stderr and not done.stdout
    assert "nothing to remove" in CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--remove"]).stdout
    refused = CliRunner().invoke(app, ["init", "aws", "--endpoint", cloud.endpoint, "--json"])
    assert json.loads(refused.stdout)["exit"] == 2


@pytest.mark.parametrize(("typed", "near"), [("us-esat-1", "us-east-1"), ("eu-wets-2", "eu-west-2"), ("us-gov-wset-1", "us-gov-west-1")])
def test_a_region_that_there_is_not_is_a_mistake_with_the_nearest_and_nobody_is_asked(typed: str, near: str, cloud: Rehearsal) -> None:
    before = len(cloud.log())
    code, said = init(cloud, "--yes", "--region", "us-east-1", "--region", typed)
    assert code == 2 and typed in said["what"] and near in said["why"] and said["next"] == f"--region {near}"
    assert len(cloud.log()) == before
    assert CliRunner().invoke(app, ["iam", "policy", "--region", typed]).exit_code == 2
    assert CliRunner().invoke(app, ["iam", "policy", "--region", near]).exit_code == 0


def test_an_auditor_reads_the_buckets_that_were_named_and_else_nothing_in_s3() -> None:
    plain = CliRunner().invoke(app, ["iam", "policy", "auditor"])
    assert plain.exit_code == 0 and "s3:" not in plain.stdout and "--bucket NAME" in plain.stderr
    named = CliRunner().invoke(app, ["iam", "policy", "auditor", "--bucket", "my-trail", "--bucket", "b.2"])
    places = [s["Resource"] for s in json.loads(named.stdout)["Statement"] if "s3:GetObject" in s["Action"]]
    assert places == [["arn:aws:s3:::my-trail", "arn:aws:s3:::my-trail/*", "arn:aws:s3:::b.2", "arn:aws:s3:::b.2/*"]] and not named.stderr


def test_a_policy_is_json_and_an_unknown_one_is_a_mistake() -> None:
    done = CliRunner().invoke(app, ["iam", "policy", "runner", "--type", "g6.*", "--region", "eu-west-1", "--account", "210987654321"])
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and said["Version"] == "2012-10-17"
    assert "210987654321" in done.stdout and "g6.*" in done.stdout and "eu-west-1" in done.stdout
    assert CliRunner().invoke(app, ["iam", "policy", "admin"]).exit_code == 2
