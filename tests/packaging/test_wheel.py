"""What a wheel and an sdist hold, and that an installed gpulease finds its data wherever it is started."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

import provisioner
from tests.packaging.conftest import ROOT, Built, files_of_the_checkout

Run = Callable[..., subprocess.CompletedProcess[str]]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = Parser().parsestr(archive.read(name).decode())
    return {key: message.get_all(key, []) for key in set(message.keys())}


def test_a_wheel_claims_exactly_two_import_names(built: Built) -> None:
    tops = {name.split("/")[0] for name in names_in(built.wheel)}
    assert tops == {"cost", "provisioner", f"gpulease-{provisioner.__version__}.dist-info"}


def test_every_file_of_the_packages_is_in_the_wheel(built: Built) -> None:
    """Data files too, and the marker that types are inside."""
    moved = {name: f"provisioner/_data/{name}" for name in ("auditor", "playbooks", "profiles")}
    ours = {
        "/".join((moved.get(path.parts[0], path.parts[0]), *path.parts[1:]))
        for path in files_of_the_checkout()
        if path.parts[0] in ("provisioner", "cost", *moved)
    }
    assert {name for name in names_in(built.wheel) if ".dist-info/" not in name} == ours
    assert {
        "provisioner/py.typed",
        "cost/py.typed",
        "provisioner/_data/auditor/verify_shutdown.py",
        "provisioner/_data/profiles/smoke.yaml",
        "provisioner/_data/profiles/evals/smoke.jsonl",
    } <= ours


def test_a_program_in_the_package_is_still_a_program_in_the_wheel(built: Built) -> None:
    ours = {str(path) for path in files_of_the_checkout() if path.parts[0] == "provisioner" and (ROOT / path).stat().st_mode & 0o100}
    with zipfile.ZipFile(built.wheel) as archive:
        programs = {info.filename for info in archive.infolist() if (info.external_attr >> 16) & 0o100}
    assert ours <= programs


def test_an_sdist_holds_what_is_needed_to_test_it(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "Makefile",
        "requirements.txt",
        "profiles/smoke.yaml",
        "tests/__init__.py",
    } <= names
    assert not [name for name in names if ".venv" in name or "__pycache__" in name or name.endswith(".pyc")]


def test_the_metadata_says_what_is_needed(built: Built) -> None:
    said = metadata(built.wheel)
    assert said["Name"] == ["gpulease"] and said["Version"] == [provisioner.__version__]
    assert said["License-Expression"] == ["Apache-2.0"] and said["Requires-Python"] == [">=3.11"]
    assert "rehearsal" in said["Provides-Extra"]
    always = {re.split(r"[^\w.-]", line)[0].lower() for line in said["Requires-Dist"] if "extra ==" not in line}
    assert always == {
        *("boto3", "cryptography", "jinja2", "paramiko", "pydantic", "pyyaml", "rfc8785"),
        *("securesystemslib", "sshtunnel", "tenacity", "typer"),
    }


def venv_with(wheel: Path, at: Path) -> Path:
    """A new environment with the wheel alone in it, and the dependencies of the environment that runs the tests in reach."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(at)], check=True)
    python = at / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    site = next(at.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return at / "bin"


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv_with(built.wheel, tmp_path_factory.mktemp("installed") / "venv")


def test_an_installed_gpulease_says_its_version(installed: Path, run: Run) -> None:
    wanted = f"gpulease {provisioner.__version__}\n"
    assert run(installed / "gpulease", "--version").stdout == wanted
    assert run(installed / "python", "-P", "-m", "provisioner", "--version").stdout == wanted


def test_an_installed_gpulease_finds_its_profiles_inside_the_package(installed: Path, run: Run) -> None:
    code = "from provisioner import data, profile; print(data.folder('profiles')); print(profile.names(), profile.load('smoke').sha256)"
    where, rest = run(installed / "python", "-P", "-c", code).stdout.splitlines()
    assert where.endswith("site-packages/provisioner/_data/profiles")
    from provisioner import profile

    assert rest == f"{profile.names()} {profile.load('smoke').sha256}"


def test_it_is_immune_to_folders_of_the_same_names_where_it_is_started(installed: Path, run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for name in ("cost", "provisioner", "profiles", "playbooks"):
        (trap / name).mkdir(parents=True)
        (trap / name / "__init__.py").write_text("raise SystemExit('the trap was imported')\n")
    (trap / "profiles" / "smoke.yaml").write_text("profile: 9\n")
    assert run(installed / "gpulease", "--version", cwd=trap).stdout.startswith("gpulease ")
    assert run(installed / "python", "-P", "-m", "provisioner", "--version", cwd=trap).stdout.startswith("gpulease ")
    code = "from provisioner import profile; print(profile.load('smoke').name)"
    assert run(installed / "python", "-P", "-c", code, cwd=trap).stdout == "smoke\n"
