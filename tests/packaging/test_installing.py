"""Whole installations, from the hash-locked files and the package index, used as a stranger would. Slow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import provisioner
from tests.packaging.conftest import ROOT, Built, copy_checkout

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


def proof(tmp_path: Path) -> Path:
    return next((tmp_path / "state" / "gpulease" / "runs").glob("*.evidence"))


def test_a_wheel_in_a_clean_environment_runs_the_smoke_profile(built: Built, run: Run, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", ROOT / "requirements.txt")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built.wheel)
    gpulease = python.with_name("gpulease")
    said = run(gpulease, "run", "smoke", "--rehearse", "--yes")
    assert "SIMULATED" in said.stdout + said.stderr
    run(gpulease, "verify", proof(tmp_path))


def test_make_try_works_on_a_fresh_checkout_and_a_second_install_is_instant(run: Run, tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    said = run("make", "try", f"PYTHON={sys.executable}", cwd=checkout)
    assert "SIMULATED" in said.stdout + said.stderr and proof(tmp_path).is_dir()
    assert "installing" not in run("make", "install", cwd=checkout).stdout
    # Editable: a changed profile in the checkout is the one that is used, and nothing is copied into site-packages.
    (checkout / "profiles" / "smoke.yaml").rename(checkout / "profiles" / "renamed.yaml")
    python = checkout / ".venv" / "bin" / "python"
    assert "renamed" in run(python, "-P", "-c", "from provisioner import profile; print(profile.names())").stdout
    site = next((checkout / ".venv").glob("lib/python*/site-packages"))
    assert not (site / "provisioner").exists() and not (site / "cost").exists()


def test_a_python_that_is_too_old_or_missing_is_told_in_words(run: Run, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "sed", "grep", "head", "ls", "touch", "make"):
        (tools / name).symlink_to(shutil.which(name) or name)
    checkout = copy_checkout(tmp_path / "checkout")
    done = run("make", "install", cwd=checkout, ok=False, PATH=str(tools))
    assert done.returncode == 2
    assert "gpulease needs Python 3.11 or newer; found none. make PYTHON=/path/to/python names another" in done.stderr
    old = tools / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    assert "found Python 3.9.2" in run("make", "install", cwd=checkout, ok=False, PATH=str(tools)).stderr


@pytest.mark.parametrize("installer", ["uv", "pipx"])
def test_a_tool_installer_gives_a_gpulease_that_finds_its_profiles(built: Built, run: Run, tmp_path: Path, installer: str) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if uv is None:
        pytest.skip("uv is not installed here (make dev installs it)")
    bin_ = tmp_path / "bin"
    places = {
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(bin_),
        "PIPX_HOME": str(tmp_path / "tools"),
        "PIPX_BIN_DIR": str(bin_),
    }
    if installer == "uv":
        run(uv, "tool", "install", "-q", "--python", sys.executable, built.wheel, **places)
    else:
        run(uv, "tool", "run", "-q", "--python", sys.executable, "pipx", "install", "-q", "--python", sys.executable, built.wheel, **places)
    assert run(bin_ / "gpulease", "--version").stdout == f"gpulease {provisioner.__version__}\n"
    assert "smoke" in run(bin_ / "gpulease", "show", "profiles").stdout
