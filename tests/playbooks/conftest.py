from __future__ import annotations

from pathlib import Path

import pytest

from tests.playbooks.localhost import LocalHost


@pytest.fixture
def local_host(tmp_path: Path) -> LocalHost:
    return LocalHost(tmp_path / "machine")
