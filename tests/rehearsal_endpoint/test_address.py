"""The journal does not name the machine's address; `gpulease ssh` finds it all the same, also when the opening is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import ledger, visit
from provisioner.errors import RefusedError
from provisioner.journal import Journal, rfc3339
from provisioner.lease import Lease, release
from provisioner.model import LaunchSpec, Requirements, Verdict
from provisioner.names import OPENINGS
from provisioner.providers.aws import AwsProvider
from provisioner.rehearsal import client
from provisioner.rehearsal.client import Rehearsal
from provisioner.scope import SystemClock
from provisioner.secret import Secret
from tests.rehearsal_endpoint.conftest import QUICK, STANDIN, wait_for

CLOCK = SystemClock()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Rehearsal]:
    made = client.start(tmp_path / "cloud", host_command=STANDIN, faults=[{"timing": QUICK}])
    yield made
    made.stop()


def test_ssh_takes_the_address_from_the_opening_and_asks_the_provider_where_that_is_lost(
    cloud: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    provider = AwsProvider("us-east-1", endpoint=cloud.endpoint)
    folder = ledger.create({"provider": "aws", "settings": provider.settings(), "simulated": True})
    offer = provider.offers(Requirements(gpu="L4"))[0]
    spec = LaunchSpec(offer, 60, rfc3339(float(int(time.time()) + 3600)), Secret("{}"), ingress_cidr="203.0.113.7/32")
    with Journal(folder.journal, CLOCK) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "aws", "settings": provider.settings(), "simulated": True})
        lease = Lease(folder.id, provider, journal, CLOCK)
        for kind in provider.steps(spec):
            lease.create(kind, spec)
        address = str(wait_for(lambda: lease.look(lease.made["instance"]).facts.get("address")))
        before = len(cloud.log())
        assert visit._address(folder, "address") == address and len(cloud.log()) == before, "nobody was asked"
        (folder.path / OPENINGS).unlink()
        assert visit._address(folder, "address") == address and len(cloud.log()) > before
        assert address.count(".") == 3 and address not in folder.journal.read_text()
        asked = next(e["body"]["facts"] for e in journal.entries if e["kind"] == "done" and e["body"]["class"] == "instance")
        assert str(asked["imageOwner"]).startswith("sha256:")
        assert release(folder.id, provider, journal, CLOCK, patience=30) is Verdict.RELEASED
    with pytest.raises(RefusedError, match="has no machine now"):
        visit._address(folder, "address")
