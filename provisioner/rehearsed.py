"""What a rehearsed account is given before a launch, as a real one has it from its owner: a role for the schedule, a way in.

The same code as for a real account makes the one; a program of the rehearsal's stands for the user's `aws` in the other.
Must not know options or profiles.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPException
from typing import Any

from provisioner.life import Access
from provisioner.rehearsal import client
from provisioner.remote import through


def way_in(access: Access, provider: Any, reach: str) -> Access:
    """The same way in as on AWS, with a program of the rehearsal's in the place of the user's `aws`."""
    if reach == "address":
        return access
    program = client.attach(str(provider.settings()["endpoint"])).aws()
    return replace(access, reach=reach, route=through.route(reach, None, program), ingress_cidr=None)


def prepare(provider: Any, regions: Sequence[str]) -> None:
    """What a real account gets from `gpulease init aws`, for a rehearsed one that is bare: the same code, so that the guard is real."""
    from provisioner.providers.aws_client import Account
    from provisioner.providers.aws_init import Site
    from provisioner.providers.aws_schedule import has_group

    endpoint = provider.settings()["endpoint"]
    accounts = [Account(region, None, endpoint) for region in dict.fromkeys(regions)]
    with _alone_in(endpoint):
        # Without a group nobody has been here; what somebody broke on purpose is left broken, to see what a run says of it.
        if bare := [account for account in accounts if not has_group(account)]:
            site = Site(bare)
            site.make(site.look(), lambda text: None)


@contextmanager
def _alone_in(endpoint: str) -> Iterator[None]:
    """Two runs that start at once in one bare rehearsal would each make the same role, and one would be refused."""
    try:
        lock = (client.attach(endpoint).folder() / "prepare.lock").open("w")
    except (OSError, ValueError, LookupError, HTTPException):
        yield  # whether a rehearsal is there at all is somebody else's question
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
