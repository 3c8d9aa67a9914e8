"""All drills at once in rehearsals, one cloud per drill, with real but short times; about a minute and a half on two cores.

The deadline is short because the budget is: it is chosen so that it lasts `RUN_S`. The other times are those that a
rehearsal may shorten (`times.py`). The busy part of a drill, until its machine is up, waits for a free core, so that a
small computer does not take a slow start for a layer that failed; the long part, waiting for a layer, costs nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from provisioner import times
from provisioner.drill.layers import Layer
from provisioner.drill.one import Ground, Row, Sleep, Tell, drill
from provisioner.drill.witness import Truth
from provisioner.times import Times

RUN_S = 62
TIMES = Times(silence_s=25, renew_every_s=2, schedule_late_s=5, fleet_late_s=5, overdue_s=5)
LATE_S, SET_UP_S = 40.0, 120.0
PROFILE, REGION = "smoke", "us-east-1"
HELD = {"host": {"start_delay_s": 600.0}}
"""The model's server does not come up, so that a run is still there when it is to be broken."""


def rehearse(layers: Sequence[Layer], folder: Path, sleep: Sleep, tell: Tell) -> list[Row]:
    """One row per layer, in their order."""
    budget = budget_for(PROFILE, RUN_S, REGION)
    cores = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))

    def one(layer: Layer) -> Row:
        with _ground(layer, folder / layer.name, budget) as ground:
            return drill(layer, ground, sleep, tell, cores)

    return together(layers, one)


def together(layers: Sequence[Layer], one: Callable[[Layer], Row]) -> list[Row]:
    """All at once. What ends one ends all, after each has cleaned up behind itself."""
    with ThreadPoolExecutor(max_workers=len(layers), thread_name_prefix="drill") as pool:
        return [done.result() for done in [pool.submit(one, layer) for layer in layers]]


@contextmanager
def _ground(layer: Layer, folder: Path, budget: str) -> Iterator[Ground]:
    from provisioner.rehearsal import client

    folder.mkdir(mode=0o700, parents=True)
    state = folder / "state"
    state.mkdir(mode=0o700)
    held = [HELD] if layer.at == "verify" else []
    cloud = client.start(folder / "cloud", idle_exit=120.0, faults=[*held, *layer.faults], timeout=60.0)
    try:
        yield Ground(
            run=("run", "--rehearse", "--endpoint", cloud.endpoint, "--budget", budget, "--yes", "--json"),
            reap=("reap", "--go", "--endpoint", cloud.endpoint, "--region", REGION, "--json"),
            profile=lambda layer: str(profile(folder / "profile.yaml", {"waive": list(layer.waive), "launch": {"fleet": layer.fleet}})),
            environment={times.NAME: json.dumps(asdict(TIMES))},
            state=state,
            witness=Truth(cloud, folder / "cloud"),
            route=cloud.route,
            times=TIMES,
            set_up_s=SET_UP_S,
            late_s=LATE_S,
        )
    finally:
        cloud.stop()


def profile(path: Path, changes: dict[str, Any]) -> Path:
    """The smoke profile with some keys changed (None takes one away), as a file of its own."""
    import yaml

    from provisioner import data, yamlsafe

    shipped = data.folder("profiles") / f"{PROFILE}.yaml"
    document: dict[str, Any] = dict(yamlsafe.load(shipped.read_text("utf-8"), shipped.name).data)
    for key, value in changes.items():
        changed = {**document.get(key, {}), **value} if isinstance(value, dict) else value
        document[key] = {k: v for k, v in changed.items() if v is not None} if isinstance(changed, dict) else changed
    path.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    return path


def budget_for(name: str, seconds: int, region: str, endpoint: str | None = None) -> str:
    """The amount that ends after so many seconds, by the quote of the profile that is run."""
    import cost
    from provisioner.clouds import Target, planned

    with planned(Target(name, None, None, None, region, None, None, None, None, True, endpoint=endpoint)) as ready:
        quote: dict[str, Any] = ready.plan_record()["quote"]
    lines = quote["lines"]
    fixed, hourly = sum(line["fixedMicroUsd"] for line in lines), sum(line["microUsdPerHour"] for line in lines)
    micro = fixed + -(-hourly * (seconds + quote["tailSeconds"]) // 3600)
    return f"{micro // cost.MICRO}.{micro % cost.MICRO:06d}"
