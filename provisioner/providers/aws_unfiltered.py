"""What is in an account whoever made it, kind by kind: the same questions as a look's, without the tag.

Not a look: nothing that is decided follows from it. It is asked once before a launch and once after the letting go, so that a
proof can say what is new and carries no tag of ours. So it may give up, which a look may not, and it does so early: a kind of
which there are more than `MOST`, that is refused, or that has not answered in time, is *not looked at*, with the reason.

Bounded in time whatever AWS does: the questions are asked by threads that nobody waits for after `within` seconds, on clients
whose answers nobody else reads. This file must not change anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

from provisioner.errors import GpuleaseError
from provisioner.model import Listed, Phase, Resource
from provisioner.providers import aws_schedule
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_inventory import KINDS
from provisioner.providers.aws_kind import Kind, resource

MOST = 2000
"""Of one kind in one region: ten pages, some seconds. An account with more has others who watch it."""
AT_ONCE = 8
NAP_S = 0.05


def listed(accounts: Sequence[Account], *, within: float, sleep: Callable[[float], None], most: int = MOST) -> tuple[Listed, ...]:
    """Everything that is there, in every region of these, in `within` seconds at most. Raises only what `sleep` raises."""
    own = [Account(one.region, one.profile, one.endpoint) for one in accounts]  # an answer that comes late is nobody's last word
    for mine, one in zip(own, accounts, strict=True):
        mine.anchor = one.anchor
    asks = [(account, name) for account in own for name in (*KINDS, aws_schedule.KIND)]
    ends, todo, said = time.monotonic() + within, SimpleQueue[tuple[Account, str]](), dict[tuple[str, str], Listed]()

    def work() -> None:
        while time.monotonic() < ends:
            try:
                account, name = todo.get_nowait()
            except Empty:
                return
            said[account.region, name] = _one(account, name, ends, most)

    for ask in asks:
        todo.put(ask)
    for n in range(min(AT_ONCE, len(asks))):
        threading.Thread(target=work, name=f"unfiltered-{n}", daemon=True).start()
    while len(said) < len(asks) and time.monotonic() < ends:
        sleep(NAP_S)
    late = f"no answer within {within:.0f} s"
    answers = dict(said)
    return tuple(answers.get((account.region, name)) or Listed(name, account.region, unchecked=late) for account, name in asks)


def _one(account: Account, name: str, ends: float, most: int) -> Listed:
    found: dict[str, Resource] = {}
    pages = _schedules(account) if name == aws_schedule.KIND else _of_kind(account, KINDS[name])
    try:
        for page in pages:
            found |= {one.id: one for one in page}
            if len(found) > most:
                return Listed(name, account.region, unchecked=f"too many: more than {most}")
            if time.monotonic() > ends:
                return Listed(name, account.region, unchecked="not listed to its end in time")
    except GpuleaseError as e:  # denied, unknown to the endpoint, throttled, no network: all the same here, and never "none"
        code = str(getattr(e, "provider_code", ""))  # AWS's sentence names the account, and is long
        return Listed(name, account.region, unchecked=f"AWS answered {code}" if code else e.what)
    except (KeyError, TypeError, ValueError) as e:
        return Listed(name, account.region, unchecked=f"an answer that cannot be read ({type(e).__name__})")
    return Listed(name, account.region, tuple(found.values()))


def _of_kind(account: Account, kind: Kind) -> Iterator[list[Resource]]:
    for answer in account.pages(kind.list_call, kind.page_size, **(kind.more or {})):
        yield [resource(kind, one, account.region, {}) for one in kind.items(answer.data)]


def _schedules(account: Account) -> Iterator[list[Resource]]:
    for answer in account.pages("ListSchedules", 100, service="scheduler"):
        yield [_schedule(str(one.get("GroupName")), str(one["Name"]), account.region) for one in answer.data.get("Schedules", [])]


def _schedule(group: str, name: str, region: str) -> Resource:
    """By its name where it is in our group, as the journal knows it; a name says more than one thing in two groups."""
    ours = aws_schedule.NAME.fullmatch(name) if group == aws_schedule.GROUP else None
    id = name if group == aws_schedule.GROUP else f"{group}/{name}"
    return Resource(aws_schedule.KIND, id, Phase.HERE, billed=False, region=region, lease=ours[1] if ours else "")
