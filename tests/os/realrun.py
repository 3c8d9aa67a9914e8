"""One real process that holds a lease on a cloud in a file, with real signals and a real watchdog; driven by test_endings.py.

python -m tests.os.realrun CLOUD SECONDS [noguard] [overdue=S]
"""

from __future__ import annotations

import sys
import time

from provisioner import closing, ledger, watchdog
from provisioner.journal import Journal, rfc3339
from provisioner.lease import hold
from provisioner.model import Outcome
from provisioner.providers.sim import SimProvider
from provisioner.scope import Cancelled, Scope, SystemClock, cry, signals
from tests.core.torture import SPEC


def main() -> int:
    cloud, seconds, *words = sys.argv[1:]
    overdue = next((float(w.removeprefix("overdue=")) for w in words if w.startswith("overdue=")), 30.0)
    provider, clock, scope = SimProvider(path=cloud, settle_s=1.5), SystemClock(), Scope()
    folder = ledger.create({"provider": "sim", "settings": provider.settings(), "deadline": rfc3339(time.time() + overdue)})
    print(folder.path, flush=True)
    error: BaseException | None = None
    with signals(scope, cry), Journal(folder.journal, clock) as journal:
        journal.append("genesis", {"lease": folder.id, "provider": "sim", "settings": provider.settings(), "simulated": True})
        if "noguard" not in words:
            watchdog.start(folder, time.time() + overdue)
        try:
            with hold(folder.id, provider, journal, clock) as lease:
                lease.create("instance", SPEC)
                print("up", flush=True)
                scope.sleep(float(seconds))
        except Cancelled as e:
            error = e
        assert lease.verdict is not None
        code = closing.exit_code(lease.verdict, error, journal)
        closing.conclude(folder, journal, Outcome.COMPLETED if error is None else Outcome.INTERRUPTED, code)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
