"""Random histories of lateness, faults and successive crashes: `released` is never issued while anything is billed, now or later."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner import journal as J
from provisioner.errors import ProviderError
from provisioner.model import Verdict
from provisioner.providers.sim import Crash, Wire
from tests.core.torture import cloud, program, recover

FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["create", "inventory", "observe", "remove"]),
        st.integers(1, 6),
        st.sampled_from(["lost", "refuse", "down", "throttled"]),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    late=st.floats(0, 59),
    linger=st.floats(0, 2000),
    survives=st.booleans(),
    faults=FAULTS,
    crashes=st.lists(st.integers(1, 60), max_size=4),
)
def test_released_means_nothing_is_billed_now_or_later(
    late: float, linger: float, survives: bool, faults: list[tuple[str, int, str]], crashes: list[int]
) -> None:
    provider, clock = cloud(late_s=late, linger_s=linger, volume_survives=survives, faults=faults)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(J, "sync"), mock.patch("os.fsync"):
        path = Path(folder) / "journal.jsonl"
        verdict: Verdict | None = None
        for i, at in enumerate(crashes or [None]):
            try:
                verdict = program(provider, clock, path, Wire(at)) if i == 0 else recover(provider, clock, path, at)
            except (Crash, ProviderError):
                verdict = None
        if path.exists() and verdict is not Verdict.RELEASED:
            verdict = recover(provider, clock, path)
        clock.sleep(1e5)
        assert verdict is Verdict.RELEASED
        assert not provider.world.billed(), provider.world.things
        J.read(path)
