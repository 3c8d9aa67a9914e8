"""Time: what a machine becomes, and when. pending -> running -> shutting-down -> terminated -> no longer listed.

One thread sleeps until the next thing is due. Every step takes the cloud's one lock and checks that nothing else was
asked of the machine meanwhile (its `epoch`), so a machine terminated while pending never wakes up running. The host
process is started while the machine is pending and told to go as soon as it is shutting down; `terminated` is said
only after its whole process tree was killed: the word must be true.

A guest that powers itself off ends as its shutdown behaviour says, with the reason codes that EC2 gives for it.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from provisioner.rehearsal import machines
from provisioner.rehearsal.faults import Plan
from provisioner.rehearsal.knobs import Stuck
from provisioner.rehearsal.machines import Machine
from provisioner.rehearsal.supervisor import Hosts
from provisioner.rehearsal.truth import Truth


class Clock:
    """Does things later, on one thread, in order; asleep in between."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._tick, name="clock", daemon=True).start()

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), do))
            self._changed.notify()

    def _tick(self) -> None:
        while True:
            with self._changed:
                while not self._due:
                    self._changed.wait()
                at, _, do = self._due[0]
                if (wait := at - time.monotonic()) > 0:
                    self._changed.wait(min(wait, 3600.0))
                    continue
                heapq.heappop(self._due)
            try:
                do()
            except Exception:  # the end of this piece of work; the clock itself must go on ticking for the others
                traceback.print_exc(file=sys.stderr)


class Lifecycle:
    def __init__(self, lock: threading.RLock, plan: Plan, clock: Clock, truth: Truth) -> None:
        self._lock, self._plan, self._clock, self._truth = lock, plan, clock, truth
        self.hosts: Hosts  # set by who makes both; each needs the other
        self.on_running: Callable[[Machine], None] = lambda _: None
        self._stuck: list[Machine] = []
        self._of: Stuck | None = None  # what `_taken` counts the machines of
        self._taken = 0

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self._clock.later(seconds, do)

    def begin(self, machine: Machine) -> None:
        """It was just asked for: start its host, and let it be running in a while."""
        machine.epoch += 1
        machine.reach = "initializing"
        machine.become("pending")
        self._clock.later(0, self._step(machine, self._boot))
        self._clock.later(self._plan.timing.pending_s, self._step(machine, self._run))

    def end(self, machine: Machine, to: str, code: str = "", message: str = "", transition: str = "") -> None:
        """Asked to stop or to terminate. Asking again, or for less, changes nothing."""
        if machine.state in ("shutting-down", "terminated") or (to == "stopped" and machine.state in ("stopping", "stopped")):
            return
        machine.epoch += 1
        machine.become("shutting-down" if to == "terminated" else "stopping")
        machine.explain(code, message, transition)
        if to == "terminated" and machine.spot_request:
            machine.spot_request.close()
        timing = self._plan.timing
        self.hosts.ask(machine.id)
        if timing.kill_grace_s < timing.stopping_s:
            self._clock.later(timing.kill_grace_s, lambda: self.hosts.kill(machine.id))
        done = self._step(machine, self._terminated if to == "terminated" else self._stopped)
        if to == "terminated" and (stuck := self._sticks(machine)):
            self._stuck.append(machine)
            if stuck.for_s is not None:
                self._clock.later(stuck.for_s, done)
            return
        self._clock.later(timing.stopping_s, done)

    def loosen(self, forced: Machine | None = None) -> None:
        """A machine is forced, or the plan may say no more that any is stuck."""
        with self._lock:
            free = [one for one in self._stuck if one is forced or self._plan.world.stuck is None]
            self._stuck = [one for one in self._stuck if one not in free]
            for machine in free:
                self._clock.later(self._plan.timing.stopping_s, self._step(machine, self._terminated))

    def _sticks(self, machine: Machine) -> Stuck | None:
        armed = self._plan.world.stuck
        if armed is not self._of:
            self._of, self._taken = armed, 0
        if armed is None or not fnmatchcase(machine.instance_type, armed.type):
            return None
        if armed.times is not None and self._taken >= armed.times:
            return None
        self._taken += 1
        return armed

    def host_is_up(self, instance: str) -> None:
        with self._lock:
            if machine := self._find(instance):
                machine.reach = "ok"

    def host_ended(self, instance: str, code: int) -> None:
        """Nobody asked: the guest switched itself off (0), or the machine broke."""
        with self._lock:
            machine = self._find(instance)
            if machine is None:
                return
            if code != 0:
                machine.reach = "impaired"
                print(f"host of {instance} ended with status {code}; its log is hosts/{instance}.log", file=sys.stderr)
                return
            self._truth.asked("instance", instance, by="guest")
            terminate = machine.instance_initiated_shutdown_behavior == "terminate"
            self.end(
                machine,
                "terminated" if terminate else "stopped",
                "Client.InstanceInitiatedShutdown",
                "Instance initiated shutdown",
            )
            self._truth.look(machine.region_name, machine.ec2_backend)

    def _step(self, machine: Machine, do: Callable[[Machine], None]) -> Callable[[], None]:
        epoch = machine.epoch

        def step() -> None:
            with self._lock:
                if machine.epoch == epoch:
                    do(machine)
                    self._truth.look(machine.region_name, machine.ec2_backend)

        return step

    def _boot(self, machine: Machine) -> None:
        user_data = str(machine.user_data or "")
        disk_gib = max((block.size for _, block in machine.get_block_device_mapping), default=machines.IMAGE_GIB)
        try:
            self.hosts.start(machine.id, machine.instance_type, user_data, disk_gib, self._plan.host(), machine.metadata())
        except OSError as e:
            machine.reach = "impaired"  # what a machine that does not come up looks like from outside
            print(f"host of {machine.id} could not be started: {e}", file=sys.stderr)

    def _run(self, machine: Machine) -> None:
        machine.get_address()
        machine.become("running")
        self.on_running(machine)

    def _stopped(self, machine: Machine) -> None:
        self.hosts.kill(machine.id)
        machine.lose_address()
        machine.become("stopped")

    def _terminated(self, machine: Machine) -> None:
        if machine.gone:  # forced, and its time came too
            return
        self.hosts.kill(machine.id)
        machine.end()
        timing = self._plan.timing
        if timing.tags_s < timing.vanish_s:
            self._clock.later(timing.tags_s, self._step(machine, self._lose_tags))
        self._clock.later(timing.vanish_s, self._step(machine, self._vanish))

    def _lose_tags(self, machine: Machine) -> None:
        machine.ec2_backend.tags.pop(machine.id, None)

    def _vanish(self, machine: Machine) -> None:
        machines.forget(machine.ec2_backend, machine)

    def _find(self, instance: str) -> Machine | None:
        return next((found for backend in _backends() if (found := machines.machine(backend, instance))), None)


def _backends() -> list[Any]:
    from provisioner.rehearsal import engine

    return [engine.backend(region) for region in engine.regions()]
