"""The servers that the SSH tests share. Each is started once per file: a server's state is its folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote.sshd import SSHD, Sshd, in_process, openssh


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with in_process(tmp_path_factory.mktemp("small")) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip("OpenSSH's sshd is not installed: nothing was tested against it (apt-get install openssh-server)")
    with openssh(tmp_path_factory.mktemp("real")) as sshd:
        yield sshd


@pytest.fixture(params=["small", "real"])
def sshd(request: pytest.FixtureRequest) -> Sshd:
    server: Sshd = request.getfixturevalue(request.param)
    return server
