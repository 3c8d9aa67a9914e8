"""Is EC2 about to take this spot machine back? A loop on the machine that says so once, and the reading of what it said.

EC2 announces an interruption in the machine's own metadata service, two minutes ahead, and nowhere sooner. So a fixed
script asks there, for as long as it is let run: `host.stream(WATCH, on_line, values=watch_values(...))` prints the notice as one
line when it appears and then ends; until then it is silent, whatever else goes wrong. No notice is not a promise: where the
service does not answer, or there is no curl, none can come. The token is asked for with a PUT, as IMDSv2 wants, and again
when it is refused; it is worth nothing beyond the machine, which has no role.

`notice` is pure and takes everything it is given for hostile. This file must not know what is done about a notice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from provisioner.clean import clean
from provisioner.remote.parsers import FactUnreadable

ACTIONS = ("terminate", "stop", "hibernate")
POLL_S = "5"
NO_CURL = 3
"""How the script ends on a machine without curl."""
_LONGEST = 400

WATCH = """# Wait for a spot interruption notice
command -v curl >/dev/null 2>&1 || { echo "there is no curl here, so no spot notice can be seen" >&2; exit 3; }
meta=http://169.254.169.254/latest
token=
ask() { curl -s --noproxy '*' --connect-timeout 1 --max-time 2 "$@"; }
while [ "$looks" != 0 ]; do
  looks=$((looks - 1))
  [ -n "$token" ] || token=$(ask -f -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' "$meta/api/token") || token=
  if [ -n "$token" ]; then
    said=$(ask -w '\\n%{http_code}' -H "X-aws-ec2-metadata-token: $token" "$meta/meta-data/spot/instance-action") || said=
    case "${said##*[!0-9]}" in
      200)
        said=${said%???}
        printf '%s' "$said" | head -c 400 | tr '\\r\\n' '  '
        echo
        exit 0 ;;
      401) token= ;;
    esac
  fi
  [ "$looks" = 0 ] || sleep "$interval"
done
"""


@dataclass(frozen=True)
class Notice:
    """What EC2 will do with the machine, and when at the earliest."""

    action: str  # "terminate", "stop" or "hibernate"
    at: datetime  # UTC


def watch_values(interval: str = POLL_S, looks: int = -1) -> Mapping[str, str]:
    """The values that WATCH needs: seconds between two looks, and how many there are to be; -1 is for ever."""
    return {"interval": interval, "looks": str(looks)}


def notice(text: str) -> Notice:
    """`{"action": "terminate", "time": "2026-11-25T08:22:00Z"}` -> Notice. FactUnreadable for anything else."""
    # A length first: deep nesting must not reach the parser's recursion.
    if len(text) > _LONGEST:
        raise _unreadable(text, f"{len(text)} characters; a notice has fewer than {_LONGEST}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _unreadable(text, "it is not JSON") from None
    if not isinstance(document, dict):
        raise _unreadable(text, "it is not a JSON object")
    action, at = document.get("action"), document.get("time")
    if action not in ACTIONS:
        raise _unreadable(text, f"its action is none of {', '.join(ACTIONS)}")
    if not isinstance(at, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", at):
        raise _unreadable(text, "its time is not of the form 2026-11-25T08:22:00Z")
    try:
        return Notice(action, datetime.fromisoformat(at).astimezone(UTC))
    except ValueError:
        raise _unreadable(text, "there is no such time") from None


def _unreadable(text: str, why: str) -> FactUnreadable:
    shown = " ".join(clean(text).split())
    return FactUnreadable(f"the spot notice cannot be read: {shown[:160]!r}", why=why)
