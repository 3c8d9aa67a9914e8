"""The tree is made once and kept between runs. What cannot run here says why and is skipped.

What only has to be installed may not be skipped in `.ci/run` (GPULEASE_NO_SKIP=1); what this computer forbids must be.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.realos import machine as m

ROOT = Path(__file__).parents[2]


def cannot(why: str) -> NoReturn:
    if os.environ.get("GPULEASE_NO_SKIP", "") not in ("", "0"):
        pytest.fail(f"may not be skipped (GPULEASE_NO_SKIP) and cannot run: {why}", pytrace=False)
    pytest.skip(f"NO REAL SYSTEMD TESTED: {why}")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := m.missing():
        cannot(why)
    if why := m.impossible(tmp_path_factory.mktemp("try")):
        pytest.skip(f"NO REAL SYSTEMD TESTED: {why}")
    made = subprocess.run([str(ROOT / "tools/real-os.sh")], capture_output=True, text=True, cwd=ROOT)
    if made.returncode:
        cannot(f"tools/real-os.sh ended with {made.returncode}: {made.stderr.strip()[-600:]}")
    return Path(os.environ.get("GPULEASE_REALOS") or ROOT / ".cache/realos").resolve() / "tree"


@pytest.fixture
def guest(tmp_path: Path, tree: Path) -> Iterator[m.Machine]:
    with m.machine(tmp_path / "guest", tree) as made:
        yield made
        print(made.console[-20_000:])  # pytest shows it when the test failed


@pytest.fixture
def late(record_property: Callable[[str, object], None]) -> Callable[[str, float, float], None]:
    """Take down how late a machine was off. It is said in the summary; no test is decided by it."""

    def noted(layer: str, due: float, off: float) -> None:
        record_property("measured", f"{layer}: off {off - due:.1f} s after it was due")

    return noted
