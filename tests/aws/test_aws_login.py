"""Who we are to AWS and until when: real credential processes, SSO caches and roles, against something that says it is AWS."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner import ledger
from provisioner.errors import ProviderError, RefusedError
from provisioner.journal import Journal
from provisioner.lease import Lease
from provisioner.model import LaunchSpec
from provisioner.providers import aws_client, aws_login
from provisioner.providers.aws import AwsProvider
from provisioner.rehearsal import client
from provisioner.scope import SystemClock
from tests.aws.amazon import Amazon, later

GPULEASE = [sys.executable, "-P", "-m", "provisioner"]
STATIC = "[default]\naws_access_key_id = AKIASTATIC\naws_secret_access_key = s3cret\n"
SECRETS = ("s3cret", "t0ken", "AKIASTATIC", "ASIAPROC", "ASIASSO", "ASIAROLE", "sso-token")


class User:
    """A home folder with ~/.aws, and gpulease started in it."""

    def __init__(self, home: Path, amazon: Amazon) -> None:
        self.home, self.amazon, self.aws = home, amazon, home / ".aws"
        (self.aws / "sso" / "cache").mkdir(parents=True)

    def files(self, config: str, credentials: str = "") -> None:
        (self.aws / "config").write_text(config)
        (self.aws / "credentials").write_text(credentials)

    def process(self, last_s: float | None, body: str = "", name: str = "keys") -> Path:
        """A credential_process: a script that prints keys which last so long, or does what `body` says."""
        path = self.home / name
        keys = {"Version": 1, "AccessKeyId": "ASIAPROC", "SecretAccessKey": "s3cret", "SessionToken": "t0ken"}
        if last_s is not None:
            keys["Expiration"] = later(last_s)
        path.write_text(f"#!/bin/sh\n{body or 'cat <<END' + chr(10) + json.dumps(keys) + chr(10) + 'END'}\n")
        path.chmod(0o700)
        return path

    def sso_token(self, name: str, last_s: float, **more: str) -> None:
        token = {"accessToken": "sso-token", "expiresAt": later(last_s), "region": "us-east-1", "startUrl": "https://d-1.awsapps.com/start"}
        path = self.aws / "sso" / "cache" / f"{hashlib.sha1(name.encode()).hexdigest()}.json"
        path.write_text(json.dumps(token | more))

    def gpulease(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [*GPULEASE, *words]
        done = subprocess.run(
            command, env=self.amazon.env(self.home) | (env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert not [word for word in SECRETS if word in done.stdout + done.stderr], "a secret was shown"
        return done

    def here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process has that home as well."""
        for name in [name for name in os.environ if name.startswith("AWS_") or "proxy" in name.lower()]:
            monkeypatch.delenv(name)
        for name, value in self.amazon.env(self.home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(self.aws / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(self.aws / "config"))
        aws_client.forget()

    def doctor(self, *words: str, env: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
        done = self.gpulease("doctor", *words, "--region", "us-east-1", "--json", env=env)
        return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Amazon]:
    made = Amazon(tmp_path_factory.mktemp("amazon"))
    yield made
    made.close()


@pytest.fixture
def user(tmp_path: Path, gate: Amazon) -> User:
    gate.good, gate.tokens, gate.role_keys_last_s, gate.rehearsal = {"AKIASTATIC": "kim", "ASIAPROC": "proc"}, {"sso-token"}, 3600, ""
    gate.asked.clear()
    return User(tmp_path, gate)


def test_keys_without_an_end_are_long_enough_for_anything(user: User) -> None:
    user.files("", STATIC)
    found = user.doctor()
    assert found["AWS login"]["result"] == "ok" and "no end" in found["AWS login"]["saw"]
    assert "user/kim" in found["AWS credentials"]["saw"]


def test_a_process_whose_keys_end_too_soon_is_said_with_both_numbers(user: User) -> None:
    user.files(f"[profile p]\ncredential_process = {user.process(50 * 60)}\n")
    found = user.doctor("smoke", "--aws-profile", "p")["AWS login"]
    assert found["result"] == "WRONG"
    assert "49 min of this login left" in found["saw"] and "may need 60 min (45 min and 15 min to let go)" in found["saw"]
    assert "--minutes 34" in found["next"] and "schedule" in found["next"]
    assert user.doctor("--aws-profile", "p")["AWS login"]["result"] == "ok"


def test_a_run_that_the_login_may_not_outlast_is_refused_before_anything_is_asked_for(user: User) -> None:
    user.files(f"[profile p]\ncredential_process = {user.process(20 * 60)}\n")
    done = user.gpulease("run", "smoke", "--aws-profile", "p", "--reach-from", "203.0.113.7/32", "--yes", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 4 and "19 min of this login left" in said["what"] and "--minutes" not in said["next"]
    assert "nothing was rented" in said["now"]
    assert {"GetCallerIdentity"} == set(user.amazon.actions("sts")) and "RunInstances" not in user.amazon.actions()


def test_a_process_that_gives_no_end_is_unknown_and_unknown_is_not_enough(user: User) -> None:
    user.files(f"[profile p]\ncredential_process = {user.process(None)}\n")
    found = user.doctor("--aws-profile", "p")["AWS login"]
    assert found["result"] == "WRONG" and "an unknown time" in found["saw"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo you must log in >&2; exit 3", "you must log in"),
        ("echo '{\"SecretAccessKey\": s3cret'", "cannot be read"),
        ("echo '{\"Version\": 1}'", "Missing required key"),
    ],
)
def test_a_process_that_gives_no_keys_is_a_finding_and_not_a_bug(user: User, body: str, words: str) -> None:
    user.files(f"[profile p]\ncredential_process = {user.process(0, body)}\n")
    found = user.doctor("--aws-profile", "p")["AWS credentials"]
    assert found["result"] == "WRONG" and words in found["saw"] and "never left this machine" in found["saw"]
    assert "aws sts get-caller-identity --profile p" in found["next"]


def test_a_process_that_is_not_there_or_gives_what_has_ended_is_a_finding_too(user: User) -> None:
    user.files(f"[profile p]\ncredential_process = {user.home / 'nosuch'}\n[profile old]\ncredential_process = {user.process(-60)}\n")
    assert "No such file" in user.doctor("--aws-profile", "p")["AWS credentials"]["saw"]
    assert "still expired" in user.doctor("--aws-profile", "old")["AWS credentials"]["saw"]


HANGS = "sleep 300 & echo $! >> {0}/sleeping; echo asked >> {0}/asked; wait"


@pytest.mark.parametrize(
    "config", ["", "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = p\n[profile p]\n"], ids=["own", "source"]
)
def test_a_process_that_hangs_is_ended_and_asked_once_however_much_waits_for_it(
    config: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of a role's source are fetched by another way through botocore, and the same limit holds."""
    user.here(monkeypatch)
    monkeypatch.setattr(aws_login, "PROCESS_S", 1.0)
    hangs = user.process(0, HANGS.format(user.home), name="hangs")
    user.files(f"[profile {'q' if config else 'p'}]\n{config}credential_process = {hangs}\n")
    provider, began = AwsProvider("us-east-1", profile="q" if config else "p"), time.monotonic()
    try:
        with pytest.raises(ProviderError) as refused:
            provider.inventory(None)
        assert time.monotonic() - began < 45
        assert "the credential_process gave no keys within 1 s" in refused.value.what and "never left this machine" in refused.value.why
        assert refused.value.next == "make the credential_process give fresh keys: aws sts get-caller-identity --profile p"
        assert (user.home / "asked").read_text().split() == ["asked"] and not user.amazon.asked
    finally:
        for pid in (user.home / "sleeping").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


SSO = "sso_start_url = https://d-1.awsapps.com/start\nsso_region = us-east-1\n"
ROLE = "sso_account_id = 123456789012\nsso_role_name = dev\n"


def test_an_sso_login_lasts_as_long_as_its_token_from_which_keys_are_renewed(user: User) -> None:
    user.files(f"[profile dev]\n{SSO}{ROLE}")
    user.sso_token("https://d-1.awsapps.com/start", 8 * 3600)
    found = user.doctor("smoke", "--aws-profile", "dev")["AWS login"]
    assert (
        found["result"] == "ok"
        and f"good until {later(8 * 3600)[:10]}" in found["saw"]
        and "renewed by itself from the SSO token" in found["saw"]
    )


def test_an_sso_login_that_has_ended_names_its_login(user: User) -> None:
    user.files(f"[profile dev]\n{SSO}{ROLE}")
    user.sso_token("https://d-1.awsapps.com/start", -60)
    found = user.doctor("--aws-profile", "dev")["AWS credentials"]
    assert found["result"] == "WRONG" and found["next"] == "aws sso login --profile dev"


def test_an_sso_session_that_renews_its_token_is_sure_only_until_the_token_ends(user: User) -> None:
    user.files(f"[sso-session corp]\n{SSO}[profile dev]\nsso_session = corp\n{ROLE}")
    user.sso_token("corp", 50 * 60, refreshToken="r3fresh", clientId="c", clientSecret="s3cret", registrationExpiresAt=later(86400 * 80))
    user.amazon.role_keys_last_s = 30 * 60
    found = user.doctor("smoke", "--aws-profile", "dev")["AWS login"]
    assert found["result"] == "WRONG" and "49 min of this login left" in found["saw"] and "until the SSO session ends" in found["saw"]


def test_an_assumed_role_lasts_as_long_as_the_keys_that_assume_it(user: User) -> None:
    user.amazon.role_keys_last_s = 20 * 60
    role = "role_arn = arn:aws:iam::123456789012:role/r\n"
    user.files(
        f"[profile a]\n{role}source_profile = default\n[profile b]\n{role}source_profile = p\n"
        f"[profile p]\ncredential_process = {user.process(50 * 60)}\n",
        STATIC,
    )
    assert "no end; assumed again with the keys of profile default" in user.doctor("smoke", "--aws-profile", "a")["AWS login"]["saw"]
    assert "49 min of this login left" in user.doctor("smoke", "--aws-profile", "b")["AWS login"]["saw"]


def test_keys_of_the_environment_tell_their_end_only_where_it_is_exported(user: User) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "ASIAPROC", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "t0ken"}
    unknown = user.doctor(env=keys)["AWS login"]
    assert unknown["result"] == "WRONG" and "an unknown time" in unknown["saw"] and "new terminal" in unknown["next"]
    known = user.doctor("smoke", env=keys | {"AWS_CREDENTIAL_EXPIRATION": later(2 * 3600)})["AWS login"]
    assert known["result"] == "ok" and "good until" in known["saw"]


def test_the_end_that_a_tool_wrote_beside_a_session_token_is_read(user: User) -> None:
    user.files("", STATIC + f"aws_session_token = t0ken\nx_security_token_expires = {later(7200)}\n")
    assert "good until" in user.doctor("smoke")["AWS login"]["saw"]


def _login(sure: aws_login.Ends) -> aws_login.Login:
    return aws_login.Login("keys", None, sure, sure, "", "aws login")


def test_a_guard_at_the_provider_lets_a_short_login_run_and_says_what_happens(user: User) -> None:
    now = time.time()
    assert aws_login.require(_login("never"), 99_999, now, False) == ""
    assert aws_login.require(_login(int(now) + 3600 + 900), 3599, now, False) == ""
    with pytest.raises(RefusedError):
        aws_login.require(_login(int(now) + 3600 + 898), 3600, now, False)
    for sure in ("unknown", int(now) + 60):
        assert "the schedule at AWS" in aws_login.require(_login(sure), 3600, now, True)  # type: ignore[arg-type]


@pytest.fixture
def cloud(tmp_path: Path, user: User) -> Iterator[client.Rehearsal]:
    made = client.start(tmp_path / "cloud", idle_exit=120, faults=[{"timing": {"pending_s": 0.1, "stopping_s": 0.2, "kill_grace_s": 0.1}}])
    user.amazon.rehearsal = made.endpoint
    yield made
    made.stop()


class Earlier(SystemClock):
    """Of a time so long ago that what was made then has shown: nothing new is waited for."""

    def now(self) -> float:
        return super().now() - 400

    def counting(self) -> float:
        return super().counting() - 400


def _held(user: User, spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch) -> ledger.LeaseFolder:
    """A lease on what it takes for AWS, made with the keys in the credentials file, whose owner is gone."""
    user.here(monkeypatch)
    provider = AwsProvider("us-east-1")
    settings: dict[str, Any] = provider.settings()
    folder = ledger.create({"provider": "aws", "settings": settings, "deadline": spec.deadline})
    with Journal(folder.journal, Earlier()) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "settings": settings, "simulated": False})
        lease = Lease(folder.id, provider, journal, Earlier())
        for kind in ("security-group", "instance"):
            lease.create(kind, spec)
    return folder


@pytest.mark.parametrize("who", ["release", "watchdog"])
def test_whoever_lets_go_uses_the_keys_that_somebody_renewed_meanwhile(
    who: str, user: User, cloud: client.Rehearsal, spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.files("", STATIC)
    folder = _held(user, spec, monkeypatch)
    del user.amazon.good["AKIASTATIC"]  # they have run out
    words = ["release", folder.id] if who == "release" else []
    command = (
        [*GPULEASE, *words] if words else [sys.executable, "-P", "-m", "provisioner.watchdog", str(folder.path), str(time.time() + 60), "1"]
    )
    going = subprocess.Popen(command, env=user.amazon.env(user.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    # When it could not look, it asks the machine that the journal names to go all the same.
    while "TerminateInstances" not in user.amazon.actions("ec2") and time.monotonic() < end:
        time.sleep(0.05)
    assert going.poll() is None, "it goes on looking"
    user.amazon.good["AKIAFRESH"] = "kim"
    user.files("", STATIC.replace("AKIASTATIC", "AKIAFRESH"))
    renewed = len(user.amazon.asked)
    while going.poll() is None and time.monotonic() < end + 60:
        stale = [1 for _, action, key in user.amazon.asked[renewed:] if (action, key) == ("DescribeInstances", "AKIASTATIC")]
        if len(stale) > 2:  # one look may have been under way, and what it was told makes the next one read the keys anew
            going.kill()
            raise AssertionError("it goes on looking with the keys that have run out")
        time.sleep(0.05)
    out, err = going.communicate(timeout=30)
    assert going.returncode == 0, err
    if words:
        assert "released" in out and "ExpiredToken" in err and "aws sso login" in err
    assert not [t for t in cloud.truth() if t["lease"] == folder.id and t["gone"] is None]
    asked = [key for _, action, key in user.amazon.asked if action == "TerminateInstances"]
    assert asked.count("AKIAFRESH") == 1 and asked[-1] == "AKIAFRESH"
    assert ledger.standing(folder).held.verdict == "released"
