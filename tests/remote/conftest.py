"""The servers that the SSH tests share. Each is started once per file: a server's state is its folder."""

from __future__ import annotations

import faulthandler
import tempfile
from collections.abc import Iterator

import pytest

from tests.remote.sshd import SSHD, Sshd, in_process, openssh


@pytest.fixture(autouse=True)
def where_it_stands() -> Iterator[None]:
    """What every thread does, printed with a test that stands still: client and server are both in this process."""
    with tempfile.TemporaryFile("w+") as told:
        faulthandler.dump_traceback_later(12, file=told)
        yield
        faulthandler.cancel_dump_traceback_later()
        told.seek(0)
        if text := told.read():
            print(text)


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
