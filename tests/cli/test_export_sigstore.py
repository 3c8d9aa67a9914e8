"""`gpulease export --sigstore` and `gpulease verify --sigstore-identity`, against a sigstore service of the test's over HTTP."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provisioner import ledger
from provisioner.cli import app
from provisioner.evidence import keyless
from provisioner.evidence.archive import Archive
from tests.cli.test_export import LEASE
from tests.evidence.bundles import copy
from tests.evidence.sigstore_service import ALICE, ISSUER, JOB, Service, config_at, served, token


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished lease with its proof; no CI and no cloud around it that would lend an identity."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "SIGSTORE_ID_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    ledger.create({"provider": "aws", "settings": {"region": "us-east-1"}, "deadline": "2026-11-18T12:51:40.000Z"}, LEASE)
    copy("normal", ledger.root() / "runs" / f"{LEASE}.evidence")
    return tmp_path


@pytest.fixture
def service(here: Path) -> Iterator[Service]:
    with served(Service()) as service:
        config_at(here / "service.json", service)
        (here / "token").write_text(token())
        yield service


SIGN = ["export", "--to", "b.zip", "--sigstore", "--sigstore-token", "token", "--sigstore-config", "service.json"]
CHECK = ["verify", "b.zip", "--sigstore-trust-root", "service.json"]


def gpulease(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_it_is_signed_after_a_warning_and_verified_offline_for_that_identity_and_no_other(here: Path, service: Service) -> None:
    code, said, warned = gpulease(*SIGN, "--yes")
    assert code == 0, warned
    assert ALICE in warned and "public log" in warned and "Nobody can take it out" in warned and (here / "token").read_text() not in warned
    assert f"gpulease verify b.zip --sigstore-identity {ALICE} --sigstore-issuer {ISSUER}" in said
    assert len(service.asked) == 2 and keyless.FILE in Archive(here / "b.zip").names
    code, said, _ = gpulease(*CHECK, "--sigstore-identity", ALICE, "--sigstore-issuer", ISSUER)
    assert code == 0 and f"Signed through sigstore as {ALICE}" in said
    code, said, _ = gpulease(*CHECK, "--sigstore-identity", "bob@example.org", "--sigstore-issuer", ISSUER, "--json")
    assert code == 2 and [p["code"] for p in json.loads(said)["problems"]] == ["E112"]
    code, said, _ = gpulease("verify", "b.zip")
    assert code == 0 and "W109" in said
    assert len(service.asked) == 2, "verifying asks nobody"


def test_the_record_says_as_whom(here: Path, service: Service) -> None:
    (here / "token").write_text(token(JOB))
    code, said, _ = gpulease(*SIGN, "--yes", "--json")
    assert code == 0 and json.loads(said)["sigstore"] == {"identity": JOB, "issuer": ISSUER}


def test_a_ci_job_signs_as_itself_without_a_token_from_anybody(here: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", token(JOB))
    code, said, warned = gpulease("export", "--to", "b.zip", "--sigstore", "--sigstore-config", "service.json", "--yes")
    assert code == 0 and JOB in said, warned


def test_a_copy_without_names_is_signed_as_the_copy_that_it_is(here: Path, service: Service) -> None:
    assert gpulease(*SIGN, "--yes", "--redact")[0] == 0
    assert gpulease(*CHECK, "--sigstore-identity", ALICE, "--sigstore-issuer", ISSUER)[0] == 0


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04", "y\n"])
def test_it_asks_and_without_a_yes_nobody_is_told_anything(answer: str, here: Path, service: Service) -> None:
    main, side = pty.openpty()
    env = {name: value for name, value in os.environ.items() if not name.startswith("COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "provisioner", *SIGN], stdin=side, stdout=subprocess.DEVNULL, stderr=side, env=env, cwd=here
    )
    os.close(side)
    seen = b""
    try:
        while b"[y/N]" not in seen:
            seen += os.read(main, 4096)
        before = list(service.asked)
        os.write(main, answer.encode())
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert before == [] and b"public log" in seen
    assert (code, (here / "b.zip").exists(), len(service.asked)) == ((0, True, 2) if answer == "y\n" else (4, False, 0))


def test_where_nobody_can_be_asked_it_says_so_first(here: Path, service: Service) -> None:
    code, _, why = gpulease(*SIGN)
    assert code == 2 and "--yes" in why and "public log" not in why and service.asked == [] and not (here / "b.zip").exists()


def test_without_an_identity_it_says_where_one_comes_from(here: Path, service: Service) -> None:
    code, _, why = gpulease("export", "--sigstore", "--sigstore-config", "service.json", "--yes")
    assert code == 4 and "id-token: write" in why and "--sigstore-token FILE" in why and not list(here.glob("*.zip"))


def test_a_ci_job_that_may_not_have_a_token_is_told_so(here: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    code, _, why = gpulease("export", "--sigstore", "--sigstore-config", "service.json", "--yes")
    assert code == 4 and "SIGSTORE_ID_TOKEN" in why


@pytest.mark.parametrize("spoil", ["token", "service.json"])
def test_a_file_that_is_not_there_stops_it(spoil: str, here: Path, service: Service) -> None:
    (here / spoil).unlink()
    code, _, why = gpulease(*SIGN, "--yes")
    assert code == 4 and spoil in why and service.asked == [] and not (here / "b.zip").exists()


def test_nothing_is_published_of_what_could_not_be_written(here: Path, service: Service) -> None:
    words = ["/nowhere/at/all.zip" if word == "b.zip" else word for word in SIGN]
    code, _, why = gpulease(*words, "--yes")
    assert code == 4 and "/nowhere/at/all.zip cannot be written" in why and service.asked == []


@pytest.mark.parametrize("words", [["--yes"], ["--sigstore-token", "token"], ["--sigstore-config", "service.json"]])
def test_options_of_it_without_it_are_a_mistake(words: list[str], here: Path) -> None:
    assert gpulease("export", *words)[0] == 2 and not list(here.glob("*.zip"))


@pytest.mark.parametrize(
    "words",
    [
        ["--sigstore-identity", ALICE],
        ["--sigstore-issuer", ISSUER],
        ["--sigstore-identity", "", "--sigstore-issuer", ISSUER],
        ["--sigstore-identity", ALICE, "--sigstore-issuer", ""],
        ["--sigstore-trust-root", "service.json"],
        ["--sigstore-identity", ALICE, "--sigstore-issuer", ISSUER, "--sigstore-trust-root", "token"],
        ["--sigstore-identity", ALICE, "--sigstore-issuer", ISSUER, "--sigstore-trust-root", "nothing"],
    ],
)
def test_half_a_question_is_none(words: list[str], here: Path, service: Service) -> None:
    assert gpulease(*SIGN, "--yes")[0] == 0
    code, _, why = gpulease("verify", "b.zip", *words)
    assert code == 3 and why
