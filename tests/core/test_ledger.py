"""The state folder: private, honest about who is alive, and never the reason why a machine is forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from provisioner import closing, ledger
from provisioner.errors import RefusedError
from provisioner.journal import Broken, Busy, Journal, read
from provisioner.ledger import LeaseFolder, adopt, alive, standing
from provisioner.model import Verdict
from provisioner.providers.sim import SimProvider, World, truth
from provisioner.scope import SystemClock
from tests.core.torture import SPEC

CLOCK = SystemClock()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def provider(tmp_path: Path) -> SimProvider:
    return SimProvider(path=str(tmp_path / "cloud.json"), world=World(linger_s=0.0), settle_s=0.3)


def held(provider: SimProvider) -> LeaseFolder:
    """A lease whose owner died while it had a machine."""
    folder = ledger.create({"provider": "sim", "settings": provider.settings()})
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "sim", "settings": provider.settings(), "simulated": True})
        journal.append("intent", {"op": "create", "class": "instance", "token": "t-1", "params": {}})
        provider.create("instance", SPEC, lease=folder.id, token="t-1", made={})
    return folder


def damage(folder: LeaseFolder) -> None:
    raw = folder.journal.read_bytes()
    folder.journal.write_bytes(raw.replace(b"genesis", b"genesiz", 1))


def billed(provider: SimProvider) -> int:
    return len(truth(Path(str(provider.path))).billed())


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_state_folder_that_others_can_enter_is_refused(mode: int, state: Path) -> None:
    (state / "gpulease").mkdir(parents=True)
    (state / "gpulease").chmod(mode)
    with pytest.raises(RefusedError, match=f"mode {mode:o}"):
        ledger.root()


def test_a_state_folder_that_is_a_link_is_refused(state: Path, tmp_path: Path) -> None:
    state.mkdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    (state / "gpulease").symlink_to(tmp_path / "theirs")
    with pytest.raises(RefusedError, match="not a folder of yours"):
        ledger.root()


def test_everything_of_a_lease_is_private_whatever_the_umask(state: Path) -> None:
    old = os.umask(0)
    try:
        folder = ledger.create({"provider": "sim", "settings": {}})
    finally:
        os.umask(old)
    assert folder.path.stat().st_mode & 0o777 == 0o700 and (folder.path / "keys").stat().st_mode & 0o777 == 0o700
    assert (folder.path / "lease.json").stat().st_mode & 0o777 == 0o600


def test_a_lease_is_alive_while_somebody_has_its_journal(provider: SimProvider) -> None:
    folder = held(provider)
    assert not alive(folder) and standing(folder).open
    with Journal(folder.journal, CLOCK):
        assert alive(folder) and standing(folder).alive
    assert not alive(folder)


def test_asking_who_is_alive_takes_nothing_from_anybody(provider: SimProvider) -> None:
    folder = held(provider)
    for _ in range(3):
        assert not alive(folder)
        Journal(folder.journal, CLOCK).close()


def test_a_lease_that_somebody_has_is_not_adopted(provider: SimProvider) -> None:
    folder = held(provider)
    before = folder.journal.read_bytes()
    with Journal(folder.journal, CLOCK), pytest.raises(Busy):
        adopt(folder, "release")
    assert folder.journal.read_bytes() == before


def test_a_damaged_journal_that_somebody_has_is_not_renamed(provider: SimProvider) -> None:
    folder = held(provider)
    with Journal(folder.journal, CLOCK):
        damage(folder)
        with pytest.raises(Busy):
            adopt(folder, "release")
        assert folder.broken() == []
        with pytest.raises(Busy):
            ledger._set_aside(folder)
    assert folder.broken() == []


def test_a_damaged_journal_is_kept_and_its_machines_are_found_by_tag(provider: SimProvider) -> None:
    folder = held(provider)
    damage(folder)
    assert standing(folder).broken and standing(folder).open
    assert closing.let_go(folder, adopt(folder, "release")) is Verdict.UNPROVEN
    assert billed(provider) == 0
    with pytest.raises(Broken):
        read(folder.broken()[0])
    genesis = read(folder.journal).entries[0]
    assert genesis["body"]["rebuilt"] is True and len(genesis["body"]["brokenSha256"]) == 64


def test_a_crash_while_a_journal_is_begun_anew_is_not_taken_for_a_lease_that_asked_for_nothing(provider: SimProvider) -> None:
    folder = held(provider)
    damage(folder)
    ledger._set_aside(folder)  # and here the process dies: the damaged one is aside, the new one not begun
    assert standing(folder).open
    assert closing.let_go(folder, adopt(folder, "release")) is Verdict.UNPROVEN
    assert billed(provider) == 0


def test_setting_aside_twice_keeps_both(provider: SimProvider) -> None:
    folder = held(provider)
    for n in (1, 2):
        damage(folder) if n == 1 else folder.journal.write_bytes(b"{}\n{}\n")
        closing.let_go(folder, adopt(folder, "release"))
    assert len(folder.broken()) == 2


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_a_lost_journal_is_not_taken_for_a_lease_that_asked_for_nothing(how: str, provider: SimProvider) -> None:
    folder = held(provider)
    folder.journal.unlink() if how == "deleted" else folder.journal.write_bytes(b"")
    assert standing(folder).open
    assert closing.let_go(folder, adopt(folder, "release")) is Verdict.UNPROVEN
    assert billed(provider) == 0


@pytest.mark.parametrize("card", [None, b"", b"[]", b'{"provider": "sim"}', b"\xff"])
def test_a_lost_card_is_made_up_for_by_the_journal(card: bytes | None, provider: SimProvider) -> None:
    folder = held(provider)
    (folder.path / "lease.json").unlink() if card is None else (folder.path / "lease.json").write_bytes(card)
    assert closing.let_go(folder, adopt(folder, "release")) is Verdict.RELEASED
    assert billed(provider) == 0


def test_without_journal_and_card_it_is_refused_with_a_way_out_and_stays_refused(provider: SimProvider) -> None:
    folder = held(provider)
    damage(folder)
    (folder.path / "lease.json").unlink()
    for _ in range(2):
        with pytest.raises(RefusedError) as said:
            adopt(folder, "release")
        assert "gpulease reap" in said.value.next
    assert standing(folder).open and not alive(folder)


def test_adopting_twice_and_releasing_twice_is_the_same_as_once(provider: SimProvider) -> None:
    folder = held(provider)
    for _ in range(2):
        assert closing.let_go(folder, adopt(folder, "release")) is Verdict.RELEASED
    assert [e["body"]["by"] for e in read(folder.journal).entries if e["kind"] == "recovered"] == ["release"] * 2


def test_the_card_holds_how_to_reach_the_cloud(provider: SimProvider) -> None:
    folder = ledger.create({"provider": "sim", "settings": provider.settings(), "access": {"user": "u"}})
    assert folder.card() == json.loads((folder.path / "lease.json").read_bytes())
