"""The life of a machine somebody else rented: locked, used, given back with nothing of ours left on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.errors import HostError, NotCreated, ProviderError, RefusedError
from provisioner.model import LaunchSpec, Phase, Requirements, Resource, Result
from provisioner.providers import connect
from provisioner.providers.conformance import *  # noqa: F403
from provisioner.providers.static import StaticProvider, known_host_key
from tests.remote.sshd import Sshd, in_process

ONE, TWO = "r-20261121t140210z-0000000a", "r-20261121t140210z-0000000b"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with in_process(tmp_path_factory.mktemp("host")) as server:
        (server.home / "bin").mkdir()
        shim = server.home / "bin/nvidia-smi"
        shim.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\n")
        shim.chmod(0o755)
        yield server


@pytest.fixture
def provider(sshd: Sshd) -> StaticProvider:
    return StaticProvider(f"{sshd.user}@127.0.0.1", sshd.port, str(sshd.client.private), sshd.host_key, grace_s=0.3)


@pytest.fixture
def spec(provider: StaticProvider) -> LaunchSpec:
    return LaunchSpec(provider.offers(Requirements())[0], 60, "2026-11-21T18:00:00Z")


@pytest.fixture
def base(sshd: Sshd) -> Iterator[Path]:
    """Not there before the test, either: the tests of every provider leave it behind."""
    ours = sshd.home / ".gpulease"
    shutil.rmtree(ours, ignore_errors=True)
    yield ours
    shutil.rmtree(ours, ignore_errors=True)


@contextlib.contextmanager
def running(folder: Path, script: str = "exec sleep 60", cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server as the playbook leaves it: leader of a session of its own, in the lease's folder, named by server.pid."""
    process = subprocess.Popen(["sh", "-c", f"{script} # ready"], cwd=cwd or folder, start_new_session=True)
    (folder / "server.pid").write_text(f"{process.pid}\n")
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def take(provider: StaticProvider, spec: LaunchSpec, lease: str = ONE, token: str = "t-1") -> Resource:
    return provider.create("host-lock", spec, lease=lease, token=token, made={})


def kinds(provider: StaticProvider, lease: str | None = ONE) -> list[str]:
    return sorted(r.kind for r in provider.inventory(lease).resources)


def test_a_host_is_taken_used_and_given_back(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    lock = take(provider, spec)
    assert (lock.billed, lock.phase, lock.lease, lock.token) == (False, Phase.HERE, ONE, "t-1")
    assert lock.facts["address"] == "127.0.0.1" and "not ours to stop" in str(lock.facts["note"])
    assert (base / ONE).stat().st_mode & 0o777 == 0o700 and (base / "lock/lease").read_text() == ONE + "\n"
    with running(base / ONE) as server:
        (base / ONE / "api.key").write_text("secret")
        assert kinds(provider) == ["host-lock", "process"]
        assert provider.remove(lock) == {"state": "removed"}
        assert server.wait(60) == -15
    assert list(base.iterdir()) == [] and kinds(provider) == []
    assert provider.observe(lock).phase is Phase.GONE


def test_a_second_lease_is_refused_and_told_whose_the_host_is(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    take(provider, spec)
    with pytest.raises(NotCreated, match=f"in use by lease {ONE}") as e:
        take(provider, spec, TWO)
    assert e.value.next == f"gpulease release {ONE}" and e.value.provider_code == "Busy"
    assert kinds(provider, TWO) == [] and not (base / TWO).exists()


def test_the_same_request_again_is_the_same_lock_and_another_is_not(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    assert take(provider, spec).id == take(provider, spec).id
    with pytest.raises(NotCreated):
        take(provider, spec, ONE, "t-2")


def test_of_many_at_once_exactly_one_gets_the_host(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    import threading

    got: list[str] = []

    def try_it(n: int) -> None:
        with contextlib.suppress(NotCreated):
            got.append(take(provider, spec, f"r-20261121t140210z-0000000{n}").lease)

    threads = [threading.Thread(target=try_it, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and [r.lease for r in provider.inventory().resources] == got


def test_a_lock_without_a_name_is_nobodys_after_a_minute(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    (base / "lock").mkdir(parents=True)
    with pytest.raises(NotCreated, match="did not leave its name") as e:
        take(provider, spec)
    assert "rmdir .gpulease/lock" in e.value.next and kinds(provider, None) == []
    os.utime(base / "lock", (time.time() - 150, time.time() - 150))
    assert take(provider, spec).lease == ONE


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    lock = take(provider, spec)
    ready = base / "trap-is-set"
    with running(base / ONE, f"trap '' TERM; sleep 60 & touch '{ready}'; while :; do sleep 0.05; done") as server:
        while not ready.exists():
            time.sleep(0.01)
        provider.remove(lock)
        assert server.wait(60) == -9
        states = subprocess.run(["ps", "-o", "stat=", "-s", str(server.pid)], capture_output=True, text=True).stdout.split()
        assert [state for state in states if not state.startswith("Z")] == []
    assert kinds(provider) == []


def test_children_whose_leader_is_gone_are_still_ours(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    take(provider, spec)
    with running(base / ONE, "sleep 60 & exit 0") as server:
        server.wait(60)
        assert kinds(provider) == ["host-lock", "process"]
        for resource in provider.inventory(ONE).resources:
            provider.remove(resource)
        assert kinds(provider) == []


def test_stopping_the_process_leaves_the_lock(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    take(provider, spec)
    with running(base / ONE):
        provider.remove(next(r for r in provider.inventory(ONE).resources if r.kind == "process"))
        assert kinds(provider) == ["host-lock"] and (base / ONE / "server.pid").exists()


def test_somebody_elses_process_with_the_same_number_is_left_alone(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    lock = take(provider, spec)
    with running(base / ONE, cwd=Path("/")) as stranger:
        assert kinds(provider) == ["host-lock"]
        provider.remove(lock)
        assert stranger.poll() is None
    assert kinds(provider) == []


@pytest.mark.parametrize("text", ["", "0", "1", "-1", "$(touch hurt)", "99999999", "1 2", "x"])
def test_a_damaged_pid_file_hurts_nobody(provider: StaticProvider, spec: LaunchSpec, base: Path, text: str) -> None:
    lock = take(provider, spec)
    (base / ONE / "server.pid").write_text(text)
    assert kinds(provider) == ["host-lock"]
    provider.remove(lock)
    assert kinds(provider) == [] and not list(base.parent.rglob("hurt"))


def test_files_without_a_lock_are_found_and_removed(provider: StaticProvider, base: Path) -> None:
    (base / ONE).mkdir(parents=True)
    left = provider.inventory(ONE).resources
    assert [(r.kind, r.state) for r in left] == [("files", "left behind")]
    provider.remove(left[0])
    assert provider.inventory(ONE).resources == ()


def test_removing_one_lease_leaves_anothers_lock(provider: StaticProvider, spec: LaunchSpec, base: Path) -> None:
    old = take(provider, spec)
    provider.remove(old)
    take(provider, spec, TWO)
    provider.remove(old)
    assert kinds(provider, TWO) == ["host-lock"]


def test_a_process_that_cannot_be_ended_is_not_called_removed(provider: StaticProvider, spec: LaunchSpec, base: Path, sshd: Sshd) -> None:
    lock = take(provider, spec)
    (sshd.home / "bin/awk").write_text("#!/bin/sh\necho 999999; echo end\n")  # somebody always seems to be left
    (sshd.home / "bin/awk").chmod(0o755)
    try:
        with running(base / ONE), pytest.raises(ProviderError, match="do not end") as e:
            provider.remove(lock)
        assert "999999" in e.value.why and (base / "lock").exists()
    finally:
        (sshd.home / "bin/awk").unlink()


def test_a_list_of_processes_that_is_not_whole_stops_everything(provider: StaticProvider, spec: LaunchSpec, base: Path, sshd: Sshd) -> None:
    lock = take(provider, spec)
    (sshd.home / "bin/awk").write_text("#!/bin/sh\nexit 2\n")
    (sshd.home / "bin/awk").chmod(0o755)
    try:
        with running(base / ONE):
            with pytest.raises(ProviderError, match="exit code 43"):
                provider.remove(lock)
            with pytest.raises(ProviderError, match="not whole"):
                provider.inventory(ONE)
        assert (base / "lock").exists()
    finally:
        (sshd.home / "bin/awk").unlink()


def test_strange_folders_and_names_are_not_leases(provider: StaticProvider, base: Path) -> None:
    for name in ("r-20261121t140210z-$(id)000", "r-x", "notes", "r-20261121t140210z-0000\n00a"):
        (base / name).mkdir(parents=True)
    (base / "lock").mkdir()
    (base / "lock/lease").write_text("$(touch hurt) x\n")
    assert provider.inventory().resources == ()


def test_an_answer_that_is_not_whole_is_not_a_list(provider: StaticProvider, sshd: Sshd, base: Path) -> None:
    (sshd.home / "bin/date").write_text("#!/bin/sh\nkill -9 $PPID\n")
    (sshd.home / "bin/date").chmod(0o755)
    try:
        with pytest.raises(ProviderError, match="not whole"):
            provider.inventory(ONE)
    finally:
        (sshd.home / "bin/date").unlink()


class Wire:
    """A login whose one command ends as told."""

    name = "me@box"

    def __init__(self, end: Result | HostError) -> None:
        self.end = end

    @contextlib.contextmanager
    def __call__(self, *where: object, **how: object) -> Iterator[Wire]:
        yield self

    def run(self, script: str, **how: object) -> Result:
        if isinstance(self.end, HostError):
            raise self.end
        return self.end


def test_a_lock_whose_answer_was_lost_may_have_been_made(provider: StaticProvider, spec: LaunchSpec) -> None:
    cut = StaticProvider(provider.host, 22, provider.identity, provider.host_key, login=Wire(HostError("connection lost")))
    with pytest.raises(ProviderError, match="connection lost") as e:
        take(cut, spec)
    assert not isinstance(e.value, NotCreated)


@pytest.mark.parametrize(
    "said", ["", "date 2026-11-21T14:02:10Z\n", f"lock {ONE} t\nend\n...\n", "end of story\n", f"lock {ONE} t t\nend\n", "welcome!\nend\n"]
)
def test_a_list_that_is_cut_or_strange_is_not_a_list(provider: StaticProvider, said: str) -> None:
    odd = StaticProvider(provider.host, 22, provider.identity, provider.host_key, login=Wire(Result(0, said, "", 0.0)))
    with pytest.raises(ProviderError):
        odd.inventory(ONE)


def test_a_machine_that_is_another_one_creates_nothing_and_proves_nothing(
    provider: StaticProvider, spec: LaunchSpec, sshd: Sshd, base: Path
) -> None:
    wrong = StaticProvider(provider.host, sshd.port, provider.identity, sshd.client.public)
    before = sshd.auth_messages
    with pytest.raises(NotCreated, match="not the one we prepared"):
        take(wrong, spec)
    with pytest.raises(ProviderError, match="not the one we prepared"):
        wrong.inventory(ONE)
    assert sshd.auth_messages == before and not base.exists()


def test_nobody_there_is_not_an_empty_list(provider: StaticProvider) -> None:
    nobody = StaticProvider(provider.host, 1, provider.identity, provider.host_key)
    with pytest.raises(ProviderError, match="cannot reach"):
        nobody.inventory(ONE)


def test_the_offer_shows_the_machine_and_whose_the_price_is(provider: StaticProvider) -> None:
    offer = provider.offers(Requirements(gpu="L4", gpus=1, vram_mib=20000))[0]
    assert (offer.gpu, offer.gpus, offer.vram_mib, offer.price.micro_usd_per_hour) == ("L4", 1, 23034, 0)
    assert "not billed by gpulease" in offer.price.source and offer.vcpus > 0
    priced = connect("static", {**provider.settings(), "price_micro_usd_per_hour": 750_000})
    assert priced.offers(Requirements())[0].price.micro_usd_per_hour == 750_000
    assert priced.settings()["price_micro_usd_per_hour"] == 750_000


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (Requirements(gpus=2), "1 GPUs; needs 2"),
        (Requirements(gpu="H200"), "GPU L4; needs H200"),
        (Requirements(vram_mib=40960), "23034 MiB per GPU; needs 40960 MiB"),
    ],
)
def test_a_machine_that_is_too_small_is_refused_with_both_numbers(provider: StaticProvider, need: Requirements, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        provider.offers(need)


@pytest.mark.parametrize("host", ["", "host", "-oProxyCommand=x@y", "u@-x", "u@a b", "u@a;b", "u@", "u\n@a"])
def test_a_host_that_could_be_more_than_a_host_is_refused(provider: StaticProvider, host: str) -> None:
    with pytest.raises(RefusedError):
        StaticProvider(host, 22, provider.identity, provider.host_key)


@pytest.mark.parametrize("key", ["", "AAAA", "ssh-dss AAAA", "ssh-ed25519 AAAA\nssh-ed25519 BBBB"])
def test_without_a_host_key_there_is_no_provider(provider: StaticProvider, key: str) -> None:
    with pytest.raises(RefusedError, match="host key"):
        StaticProvider(provider.host, 22, provider.identity, key)


def test_the_users_known_hosts_is_asked_and_an_unknown_host_is_shown(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RefusedError, match="is not known") as e:
        known_host_key("127.0.0.1", sshd.port, "me")
    assert "SHA256:" in e.value.why and sshd.host_key in e.value.next
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    assert known_host_key("127.0.0.1", sshd.port) == sshd.host_key
