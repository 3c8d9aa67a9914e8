"""The embedded cloud: an EC2-compatible endpoint on loopback whose instances are real SSH hosts. Everything is SIMULATED.

It runs as its own process (`serve.py`), so that it outlives the run that started it exactly as a cloud would: a
`kill -9` of the run leaves a machine running, and only the guest's own timers, a later `reap` or the idle exit
end it. `client.py` is the one file the rest of gpulease imports; it is stdlib only. The endpoint is moto's EC2 for
grammar, with the semantics moto lacks in front of it: time, idempotency, refusals, faults and machines that exist.

Nothing here knows about leases, journals or verdicts: it is the world, not the tool, and its account of what exists
(`/_rehearsal/truth`) is what the tool's claims are checked against.
"""

SIMULATED = "gpulease-rehearsal"
"""The value of the `X-Simulated` header on every answer."""
