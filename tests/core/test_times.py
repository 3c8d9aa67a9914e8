"""What a rehearsal may shorten, and a real cloud may not."""

from __future__ import annotations

import pytest

from provisioner.clouds import Target, check
from provisioner.errors import UsageError
from provisioner.times import NAME, REAL, Times, of


def test_a_real_cloud_never_looks_at_the_variable() -> None:
    assert of(False, {NAME: '{"silence_s": 5}'}) == REAL == Times(900, 60, 180, 240, 900)
    assert of(True, {NAME: '{"silence_s": 5, "renew_every_s": 4}'}) == Times(silence_s=5, renew_every_s=4)
    assert of(True, {}) == REAL


@pytest.mark.parametrize("text", ["5", "[]", "{", '{"silence": 5}', '{"silence_s": 0}', '{"silence_s": 1.5}', '{"silence_s": "5"}'])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=NAME):
        of(True, {NAME: text})


@pytest.mark.parametrize("text", ['{"silence_s": 10, "renew_every_s": 20}', '{"silence_s": 60}', '{"renew_every_s": 900}'])
def test_a_machine_that_would_miss_every_sign_of_life_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"a sign of life every .* s of silence end the machine"):
        of(True, {NAME: text})


def test_a_real_run_does_not_start_with_it_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, '{"silence_s": 90}')
    with pytest.raises(UsageError, match="no rehearsal"):
        check(Target("smoke", None, None, None, "us-east-1", None, None, None, None, False))
    check(Target("smoke", None, None, None, "us-east-1", None, None, None, None, True))
