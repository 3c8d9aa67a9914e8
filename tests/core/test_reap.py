"""Reaping by tag: what is overdue goes, what is somebody's stays, and the exit code is the worst of what is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner import closing, ledger
from provisioner.errors import Exit, ProviderError, UsageError
from provisioner.evidence.verify import verify
from provisioner.journal import Journal, read, rfc3339
from provisioner.model import Inventory, Resource, Verdict
from provisioner.providers.sim import Fault, SimProvider, World, truth
from provisioner.reap import OVERDUE_S, Found, Reaped
from provisioner.reap import reap as reap_regions
from provisioner.scope import SystemClock
from tests.core.torture import SPEC

ONE, TWO = "r-20261121t140210z-00000001", "r-20261121t140210z-00000002"


class Tagged(SimProvider):
    """The simulated cloud with a deadline on everything, as the real ones have it in a tag."""

    deadlines: Mapping[str, str] = {}

    def inventory(self, lease: str | None = None) -> Inventory:
        whole = super().inventory(lease)
        return replace(whole, resources=tuple(replace(r, facts={"deadline": self.deadlines.get(r.lease, "")}) for r in whole.resources))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def cloud(tmp_path: Path) -> Tagged:
    return Tagged(path=str(tmp_path / "cloud.json"), world=World(linger_s=0.0), settle_s=0.3)


def rent(cloud: Tagged, lease: str, deadline_in: float | str) -> Resource:
    text = deadline_in if isinstance(deadline_in, str) else rfc3339(time.time() + deadline_in)
    cloud.deadlines = {**cloud.deadlines, lease: text}
    return cloud.create("instance", SPEC, lease=lease, token=f"t-{lease}", made={})


def billed(cloud: Tagged) -> set[str]:
    return {t.lease for t in truth(Path(str(cloud.path))).billed()}


def reap(cloud: Tagged, names: tuple[str, ...], *, go: bool) -> list[Found]:
    return list(everywhere({"sim-1": cloud}, names, go=go).leases)


def everywhere(clouds: Mapping[str, Tagged], names: tuple[str, ...] = (), *, go: bool) -> Reaped:
    return reap_regions(clouds, lambda regions: clouds[regions[0]], names, go=go)


def states(found: list[Found]) -> dict[str, tuple[str, Any]]:
    return {f.lease: (f.state, f.verdict) for f in found}


def test_dry_it_touches_nothing(cloud: Tagged) -> None:
    rent(cloud, ONE, -3600)
    assert states(reap(cloud, (), go=False)) == {ONE: ("overdue", None)}
    assert billed(cloud) == {ONE}


def test_what_is_overdue_goes_and_what_is_in_time_stays(cloud: Tagged) -> None:
    rent(cloud, ONE, -OVERDUE_S - 5)
    rent(cloud, TWO, -OVERDUE_S + 5)
    assert states(reap(cloud, (), go=True)) == {ONE: ("overdue", Verdict.RELEASED), TWO: ("in time", None)}
    assert billed(cloud) == {TWO}


def test_what_is_in_time_goes_when_it_is_named(cloud: Tagged) -> None:
    rent(cloud, ONE, 3600)
    assert states(reap(cloud, (ONE,), go=True)) == {ONE: ("named", Verdict.RELEASED)}
    assert billed(cloud) == set()


@pytest.mark.parametrize("tag", ["mine", "r-2026", ONE + "x", "../" + ONE, ONE.upper()])
def test_a_tag_in_another_shape_is_not_ours(tag: str, cloud: Tagged) -> None:
    rent(cloud, tag, -(10**6))
    assert reap(cloud, (), go=True) == []
    with pytest.raises(UsageError):
        reap(cloud, (tag,), go=True)
    assert billed(cloud) == {tag}


@pytest.mark.parametrize("deadline", ["", "zzz", "2026"])
def test_without_a_deadline_that_is_a_time_it_stays_until_it_is_named(deadline: str, cloud: Tagged) -> None:
    rent(cloud, ONE, deadline)
    found = reap(cloud, (), go=True)
    assert states(found) in ({ONE: ("no deadline", None)}, {ONE: ("overdue", Verdict.RELEASED)})
    assert (billed(cloud) == set()) == (found[0].state == "overdue")


def test_what_a_process_here_holds_is_not_touched_even_if_named(cloud: Tagged) -> None:
    rent(cloud, ONE, -(10**6))
    folder = ledger.create({"provider": "sim", "settings": cloud.settings()}, ONE)
    with Journal(folder.journal, SystemClock()):
        assert states(reap(cloud, (ONE,), go=True)) == {ONE: ("held here", None)}
    assert billed(cloud) == {ONE}


def test_a_journal_that_is_here_is_used_and_its_lease_can_be_released(cloud: Tagged) -> None:
    folder = ledger.create({"provider": "sim", "settings": cloud.settings()}, ONE)
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": ONE, "provider": "sim", "settings": cloud.settings(), "simulated": True})
        journal.append("intent", {"op": "create", "class": "instance", "token": f"t-{ONE}", "params": {}})
    rent(cloud, ONE, -3600)
    assert states(reap(cloud, (), go=True)) == {ONE: ("overdue", Verdict.RELEASED)}
    assert billed(cloud) == set()


def test_a_journal_that_knows_nothing_does_not_outweigh_what_the_provider_shows(cloud: Tagged) -> None:
    folder = ledger.create({"provider": "sim", "settings": cloud.settings()}, ONE)
    with Journal(folder.journal, SystemClock()) as journal:
        journal.append("genesis", {"lease": ONE, "provider": "sim", "settings": cloud.settings(), "simulated": True})
        journal.append("verdict", {"verdict": "released"})
    rent(cloud, ONE, -3600)
    reap(cloud, (), go=True)
    assert billed(cloud) == set()


def test_one_lease_whose_files_are_in_the_way_does_not_keep_the_others(cloud: Tagged) -> None:
    folder = ledger.create({"provider": "sim", "settings": cloud.settings()}, ONE)
    folder.journal.touch(mode=0o600)
    folder.journal.chmod(0o644)
    rent(cloud, ONE, -3600)
    rent(cloud, TWO, -3600)
    found = reap(cloud, (), go=True)
    assert states(found)[ONE] == ("overdue", Verdict.UNPROVEN) and "not a private file" in found[0].said
    assert billed(cloud) == {ONE}


def test_the_first_line_of_a_journal_begun_here_says_that_it_was(cloud: Tagged) -> None:
    rent(cloud, ONE, -3600)
    reap(cloud, (), go=True)
    genesis, recovered, observed, *_ = read(ledger.find(ONE).journal).entries
    assert (genesis["body"]["elsewhere"], genesis["body"]["simulated"], recovered["body"]["by"]) == (True, True, "reap")
    assert observed["kind"] == "observe"


def test_a_list_that_cannot_be_had_is_an_error_and_not_an_empty_list(cloud: Tagged) -> None:
    cloud.world.faults = [Fault("inventory", 1, "throttled")]
    with pytest.raises(ProviderError):
        reap(cloud, (), go=True)


class There(Tagged):
    """The same cloud, somewhere else."""

    def inventory(self, lease: str | None = None) -> Inventory:
        whole = super().inventory(lease)
        return replace(whole, resources=tuple(replace(r, region="sim-2") for r in whole.resources))


@pytest.mark.parametrize("what", ["denied", "throttled"])
def test_a_region_that_cannot_be_seen_is_said_and_does_not_keep_the_others(what: str, cloud: Tagged, tmp_path: Path) -> None:
    blind = There(path=str(tmp_path / "blind.json"), world=World(linger_s=0.0, faults=[Fault("inventory", 9, what)]), settle_s=0.3)
    rent(cloud, ONE, -3600)
    reaped = everywhere({"sim-1": cloud, "sim-2": blind}, go=True)
    assert states(list(reaped.leases)) == {ONE: ("overdue", Verdict.RELEASED)} and not billed(cloud)
    assert [one.region for one in reaped.unseen] == ["sim-2"] and reaped.unseen[0].why
    assert closing.worst(reaped.verdicts) is Exit.UNPROVEN, "what nobody saw is not nothing"


def test_a_dry_look_that_missed_a_region_says_so_in_its_exit_code_too(cloud: Tagged, tmp_path: Path) -> None:
    blind = There(path=str(tmp_path / "blind.json"), world=World(faults=[Fault("inventory", 9, "denied")]))
    assert closing.worst(everywhere({"sim-1": cloud, "sim-2": blind}, go=False).verdicts) is Exit.UNPROVEN
    assert closing.worst(everywhere({"sim-1": cloud}, go=False).verdicts) is Exit.OK


def test_a_name_that_is_not_shown_says_which_region_was_not_seen(cloud: Tagged, tmp_path: Path) -> None:
    blind = There(path=str(tmp_path / "blind.json"), world=World(faults=[Fault("inventory", 9, "denied")]))
    with pytest.raises(UsageError) as e:
        everywhere({"sim-1": cloud, "sim-2": blind}, (ONE[-8:],), go=True)
    assert "sim-2 could not be looked at" in e.value.why
    whole = everywhere({"sim-1": cloud, "sim-2": blind}, (ONE,), go=True)
    assert whole.absent == (ONE,) and closing.worst(whole.verdicts) is Exit.UNPROVEN, "nobody saw that it is not in sim-2"


@pytest.mark.parametrize("name", [ONE, ONE[-8:], ONE[-1:]])
def test_a_lease_is_named_by_its_id_or_an_end_that_no_other_has_and_only_it_goes(name: str, cloud: Tagged) -> None:
    rent(cloud, ONE, 3600)
    rent(cloud, TWO, -3600)
    assert states(reap(cloud, (name,), go=True)) == {ONE: ("named", Verdict.RELEASED)}
    assert billed(cloud) == {TWO}, "only those that were named, also where another is overdue"


@pytest.mark.parametrize("name", ["r-2026", "0", ""])
def test_a_name_that_could_be_several_or_none_lets_go_of_nothing(name: str, cloud: Tagged) -> None:
    rent(cloud, ONE, 3600)
    rent(cloud, TWO, 3600)
    with pytest.raises(UsageError, match=r"could be 2 leases|shows nothing of"):
        reap(cloud, (name,), go=True)
    assert billed(cloud) == {ONE, TWO}


def test_a_lease_that_is_gone_is_no_mistake_to_name_again(cloud: Tagged) -> None:
    rent(cloud, ONE, 3600)
    reap(cloud, (ONE,), go=True)
    again = everywhere({"sim-1": cloud}, (ONE,), go=True)
    assert (again.leases, again.absent, closing.worst(again.verdicts)) == ((), (ONE,), Exit.OK)


def test_several_that_are_overdue_go_side_by_side(tmp_path: Path) -> None:
    cloud = Tagged(path=str(tmp_path / "cloud.json"), world=World(linger_s=1.0), settle_s=0.3)
    leases = [f"r-20261121t140210z-0000000{n}" for n in range(4)]
    for lease in leases:
        rent(cloud, lease, -3600)
    assert {f.verdict for f in reap(cloud, (), go=True)} == {Verdict.RELEASED}
    asked = [t.asked or 0.0 for t in truth(Path(str(cloud.path))).things.values() if t.kind == "instance"]
    gone = [t.dies_at or 0.0 for t in truth(Path(str(cloud.path))).things.values() if t.kind == "instance"]
    assert max(asked) < min(gone), "the last was asked to go before the first had gone"


def test_what_is_known_by_its_tag_alone_is_released_after_the_settle_time_and_the_proof_says_so(cloud: Tagged) -> None:
    rent(cloud, ONE, -3600)
    assert states(reap(cloud, (), go=True)) == {ONE: ("overdue", Verdict.RELEASED)}
    folder = ledger.find(ONE)
    (verdict,) = [e["body"] for e in read(folder.journal).entries if e["kind"] == "verdict"]
    sweeps = [e["at"]["monoMs"] for e in read(folder.journal).entries if e["kind"] == "sweep" and e["body"]["found"] == 0]
    assert verdict["verdict"] == "released" and sweeps[-1] - sweeps[0] >= 300
    predicate = verify(folder.evidence).predicate
    assert predicate is not None and "journal-elsewhere" in predicate["limits"] and not predicate["clean"]
    assert "All that was shown under its tag was seen gone" in (folder.evidence / "report.md").read_text("utf-8")


def test_a_reap_that_died_before_it_saw_anything_did_not_ask_for_nothing(cloud: Tagged) -> None:
    rent(cloud, ONE, -3600)
    card = {"provider": "sim", "settings": cloud.settings(), "simulated": True, "elsewhere": True}
    folder = ledger.create(card, ONE)
    assert closing.let_go(folder, ledger.adopt(folder, "release")) is Verdict.RELEASED
    assert not billed(cloud)
