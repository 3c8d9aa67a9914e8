"""Options that cannot be meant so: refused before anything is looked at, with what was found and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.clouds import Target, check
from provisioner.errors import UsageError
from tests.cli.conftest import Cli

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1DnAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

WRONG = [
    (["--host", "me@box", "--provider", "aws"], 2, "--host needs --provider static"),
    (["--identity", "k", "--host-key", "x"], 2, "--identity and --host-key need --provider static"),
    (["--host", "me@box", "--rehearse"], 2, "--host means a machine of your own"),
    (["--host", "me@box", "--region", "us-east-1"], 2, "--region needs --provider aws"),
    (["--provider", "static"], 2, "needs --host"),
    (["--provider", "nowhere"], 2, "known: aws, static"),
    (["--provider", "sim"], 2, "known: aws, static"),
    (["--endpoint", "http://127.0.0.1:1"], 2, "only a rehearsal is at an address of its own"),
    (["--faults", "[]"], 2, "--faults needs --rehearse"),
    (["--rehearse", "--endpoint", "http://127.0.0.1:1"], 2, "no rehearsal answers at http://127.0.0.1:1"),
    (["--rehearse", "--endpoint", "http://198.51.100.1:5555"], 4, "is not on this machine"),
    (["--rehearse", "--endpoint", "nonsense"], 4, "is not on this machine"),
    (["--rehearse", "--aws-profile", "me"], 2, "--aws-profile has no meaning in a rehearsal"),
    (["--rehearse", "--region", "nowhere"], 4, "not the name of an AWS region"),
    (["--rehearse", "--faults", "{"], 2, "--faults cannot be read"),
    (["--rehearse", "--faults", "[1]"], 2, "JSON list of objects"),
    (["--rehearse", "--faults", '[{"action": "RunInstances", "kind": "sudden"}]'], 2, "kind out of"),
    (["--rehearse", "--faults", '[{"timing": 3}]'], 2, "--faults cannot be read"),
    (["--rehearse", "--faults", "no-such-file"], 2, "No such file"),
    (["--rehearse", "--faults", ""], 2, "--faults cannot be read"),
    (["--keep", "soon"], 2, "--keep is 'soon'"),
    (["--keep", "-5m"], 2, "--keep is '-5m'"),
    (["--budget", "0"], 4, "$0.00 lasts 0 s"),
    (["--budget", "nan"], 2, "not an amount in dollars"),
    (["--budget", "1e3"], 2, "not an amount in dollars"),
    (["--region", "us-west-2"], 4, "no offer of aws in us-west-2"),
    (["--region", "US East"], 4, "not the name of an AWS region"),
    (["--minutes", "6"], 4, "the time limit is 360 s"),
    (["--minutes", "45", "--keep", "44m"], 4, "2640 s of them for --keep"),
    (["--reach-from", "0.0.0.0/0"], 2, "4294967296 addresses"),
    (["--reach-from", "home"], 2, "--reach-from is 'home'"),
    (["--no-ingress", "--host", "me@box"], 2, "--no-ingress needs --provider aws"),
    (["--no-ingress", "--reach-from", "203.0.113.7/32"], 2, "--no-ingress and --reach-from"),
    (["--aws-profile", "nobody"], 4, "'nobody' is not configured"),
]


@pytest.mark.parametrize(("words", "code", "what"), WRONG, ids=[" ".join(w) for w, _, _ in WRONG])
def test_what_cannot_be_meant_is_refused_with_a_next_step(words: list[str], code: int, what: str, cli: Cli) -> None:
    said = cli("run", "smoke", "--yes", "--json", *words)
    assert said.code == code, said
    assert what in said.answer["what"] + said.answer["why"]
    assert said.answer["next"] and said.answer["now"] == "nothing was rented, nothing was spent"
    assert not any((cli.state / "gpulease" / "runs").glob("r-*"))


@pytest.mark.parametrize("host", ["box", "@box", "me@", "me@::1", "me@-oProxyCommand=x", "me@box:0", "me@box:99999", "me@b ox", "ME@box"])
def test_a_host_that_is_none_is_refused(host: str, cli: Cli) -> None:
    said = cli("plan", "cpu-static", "--provider", "static", "--host", host, "--host-key", KEY, "--identity", __file__)
    assert said.code == 2 and "--host is" in said.err


@pytest.mark.parametrize("place", ["me@127.0.0.1:1", "me@[::1]:1", "me@localhost:1"])
def test_an_address_with_a_port_is_understood(place: str, cli: Cli) -> None:
    said = cli("plan", "cpu-static", "--host", place, "--host-key", KEY, "--identity", __file__, "--json")
    assert said.code == 4 and "--host is" not in said.answer["what"]


def test_a_key_that_is_not_there_is_said_before_anybody_is_asked(cli: Cli) -> None:
    said = cli("plan", "cpu-static", "--host", "me@127.0.0.1:1", "--host-key", KEY, "--identity", "/no/such/key")
    assert said.code == 2 and "--identity /no/such/key is not a file" in said.err


@pytest.mark.parametrize(
    ("profile", "what"), [("{tmp}/", "is not a file"), ("{tmp}/none.yaml", "does not exist"), ("smok", "nearest: smoke")]
)
def test_a_profile_that_is_none_is_refused(profile: str, what: str, cli: Cli, tmp_path: Path) -> None:
    said = cli("plan", profile.format(tmp=tmp_path))
    assert said.code == 2 and what in said.err


def test_each_complaint_about_a_profile_has_a_line_of_its_own(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("profile: 1\nname: x\nnonsense: 1\nbudget: 3\n")
    lines = cli("plan", str(path)).err.splitlines()
    assert lines[0].endswith("things to correct") and sum("bad.yaml:" in line for line in lines[1:]) >= 3


def test_options_that_do_not_go_together_are_refused_by_doctor_too(cli: Cli) -> None:
    assert cli("doctor", "--identity", "k").code == 2


def test_good_options_are_not_refused() -> None:
    def target(**more: object) -> Target:
        given: dict[str, object] = dict.fromkeys(("budget", "minutes", "provider", "region", "aws_profile", "host", "identity", "host_key"))
        return Target(**{"profile": "smoke", **given, "rehearse": False, **more})  # type: ignore[arg-type]

    for more in (
        {},
        {"rehearse": True, "faults": "[]", "region": "us-east-1"},
        {"host": "me@box", "identity": Path("k")},
        {"provider": "static", "host": "me@box"},
        {"region": "us-east-1", "aws_profile": "me", "reach_from": "203.0.113.7/32"},
        {"region": "us-east-1", "no_ingress": True},
    ):
        check(target(**more))
    with pytest.raises(UsageError):
        check(target(keep="1d"))


AWS_CONFIGS = {"names no region": "[default]\noutput=json\n", "cannot be parsed": "nonsense\n"}


@pytest.mark.parametrize("config", AWS_CONFIGS)
@pytest.mark.parametrize("command", [["doctor"], ["reap"], ["plan", "{any}"]])
def test_an_aws_configuration_that_is_of_no_use_is_said(command: list[str], config: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "aws").write_text(AWS_CONFIGS[config])
    anywhere = tmp_path / "any.yaml"
    anywhere.write_text(cli("show", "profile", "smoke").out.replace("  regions: [us-east-1]\n", ""))
    cli.env["AWS_CONFIG_FILE"] = str(tmp_path / "aws")
    said = cli(*(word.format(any=anywhere) for word in command), "--json")
    text = json.dumps(said.answer)
    if command == ["reap"] and "region" in config:
        # It looks in every region, so it needs none; what it lacks here is a login.
        assert said.code == 20 and "DescribeRegions: NoCredentials" in text, said
        return
    assert said.code in (2, 4), said
    assert ("no AWS region" if "region" in config else "nable to parse") in text


def test_a_region_without_credentials_is_an_answer_and_not_a_trace(cli: Cli) -> None:
    said = cli.process("doctor", "--region", "us-east-1", "--json")
    found = {f["check"]: f for f in said.answer["findings"]}
    assert said.code == 4 and found["AWS credentials"]["result"] == "WRONG" and "aws configure" in found["AWS credentials"]["next"]
    saw = found["AWS credentials"]["saw"]
    assert "there are no AWS credentials here" in saw and "the request never left this machine" in saw
    assert found["clock"]["result"] == "unknown" and found["watchdog"]["result"] == "ok"


def test_a_plan_that_nobody_at_aws_was_asked_for_says_so_and_is_no_ok(cli: Cli) -> None:
    said = cli("plan", "smoke")
    assert said.code == 0 and "note     AWS was not asked: " in said.out and "the snapshot's" in said.out
    assert [note[:18] for note in cli("plan", "smoke", "--json").answer["notes"]] == ["AWS was not asked:"]
    found = {f["check"]: f for f in cli("doctor", "smoke", "--region", "us-east-1", "--json").answer["findings"]}
    assert found["profile smoke"]["result"] == "unknown" and "AWS was not asked" in found["profile smoke"]["saw"]


def test_a_rehearsed_plan_was_asked_for_and_can_be_without_an_address(cli: Cli) -> None:
    said = cli.process("plan", "smoke", "--rehearse", "--no-ingress", "--json")
    assert said.code == 0 and said.answer["notes"] == []
    assert not [line for line in said.answer["quote"]["lines"] if line["name"] == "public-ipv4" and line["microUsdPerHour"]]
