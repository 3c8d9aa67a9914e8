"""The two lock files: complete, pinned, hashed, and free of where this machine found its packages."""

from __future__ import annotations

import contextlib
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.txt", "requirements-dev.txt")


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package -> (version, number of hashes)."""
    joined = (ROOT / name).read_text().replace("\\\n", " ")
    rows = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    found = {}
    for row in rows:
        match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.!+-]+) ", row)
        assert match, f"{name}: {row[:80]}"
        found[match[1]] = (match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)", row)))
    return found


def plain(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes(name: str) -> None:
    assert [package for package, (_, hashes) in locked(name).items() if hashes == 0] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_folder(name: str) -> None:
    assert re.findall(r"://|file:|^ *--(?!hash)|^/|(?<==)/", (ROOT / name).read_text(), re.MULTILINE) == []


def test_what_make_try_installs_is_what_is_declared() -> None:
    declared = [
        *PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"]["rehearsal"],
        *PYPROJECT["dependency-groups"]["build"],
    ]
    assert {plain(line) for line in declared} <= set(locked("requirements.txt"))
    tools = [line for line in PYPROJECT["dependency-groups"]["dev"] if isinstance(line, str)]
    assert {plain(line) for line in tools} <= set(locked("requirements-dev.txt"))


def test_a_developer_runs_the_versions_that_a_user_gets() -> None:
    user, developer = locked("requirements.txt"), locked("requirements-dev.txt")
    assert {name: version for name, (version, _) in user.items()} == {name: developer[name][0] for name in user if name in developer}


def test_the_locks_hold_wheels_for_every_python_that_is_promised() -> None:
    """A compiled package has one hash for each Python and platform: far more than the two of a pure one."""
    user = locked("requirements.txt")
    assert all(user[name][1] > 20 for name in ("pydantic-core", "pyyaml", "cffi", "markupsafe"))


@pytest.mark.parametrize("name", LOCKS)
def test_a_package_that_is_wanted_with_an_extra_is_locked_with_it(name: str) -> None:
    """pip 23 takes `pydantic[email]` for unpinned where the lock has `pydantic` alone, and installs nothing at all."""
    text = (ROOT / name).read_text()
    for package in locked(name):
        with contextlib.suppress(metadata.PackageNotFoundError):  # of another system than this one
            for line in metadata.requires(package) or ():
                wanted = Requirement(line)
                if wanted.extras and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                    found = re.search(rf"^{re.escape(plain(wanted.name))}\[([\w,-]+)\]==", text, re.M)
                    assert found and wanted.extras <= set(found[1].split(",")), f"{package} wants {wanted}"
