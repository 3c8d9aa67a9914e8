"""What a machine is told at birth: its host key, who may log in, and when to power itself off.

`user_data` is a pure function to a cloud-config. Its one command runs before anything is installed and again on every
boot, and arms three guards that need no network, no client and no credentials:

    deadline   a calendar timer at an absolute instant, the same one after every reboot
    twin       the same by a clock that nobody sets: the seconds left when the machine booted, never more than the run's
    lease      a check every 30 s: no sign of life from the client for 15 minutes, counted in uptime, never wall time
               (a rehearsal's shorter silence is looked at more often)

All end in one script: `systemctl poweroff`, and a forced power-off a minute later. It runs without systemd's default
dependencies, so that it outlives a shutdown that hangs and starts however early it fires. `shutdown +N` is not used: it
refuses logins in its last five minutes. `armed` reads the guards back before money is spent on anything else.

A rehearsal's machine is a folder, named by GPULEASE_ROOT; the scripts find theirs from their own path, and refuse to
power off a machine that is not it. Must not know who runs this, nor about SSH.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Template

from provisioner.errors import HostError, RefusedError
from provisioner.model import Host
from provisioner.secret import Secret

LIMIT = 16 << 10
DEADLINE, TWIN, LEASE = "gpulease-deadline.timer", "gpulease-deadline-twin.timer", "gpulease-lease.timer"
GUARD_UNITS = (DEADLINE, TWIN, LEASE)
RENEW = 'touch -- "${GPULEASE_ROOT:-}/run/gpulease/lease"'
TWIN_SLACK_S = 60

POWEROFF = """\
#!/bin/sh
# Ends this machine. Nothing here may stop the next line from being tried.
root=${0%/usr/local/lib/gpulease/*}
said="gpulease: power off: ${1:-asked} at $(date -u +%Y-%m-%dT%H:%M:%SZ)${TRIGGER_UNIT:+ by $TRIGGER_UNIT}"
if [ -n "$root" ]; then
  case $(command -v poweroff) in "$root"/*) ;; *) echo "refused: not the machine in $root" >&2; exit 1 ;; esac
else
  { echo "$said" > /dev/console; } 2>/dev/null
fi
echo "$said" >> "$root/run/gpulease/fired"
systemctl --no-block poweroff &
sleep 60
poweroff -ff &
sleep 10
[ -n "$root" ] || echo o > /proc/sysrq-trigger
"""

LEASE_CHECK = """\
#!/bin/sh
# Off when the lease file was not touched for $silence s. Its time stamp is only compared with itself; the seconds are uptime's.
root=$${0%/usr/local/lib/gpulease/*}
seen=$$root/run/gpulease/seen
up= was= since=
read -r up rest 2>/dev/null < "$$root/proc/uptime"
up=$${up%%.*}
[ -n "$$up" ] || { echo "no uptime: only the deadline guards this machine" >&2; exit 1; }
mark=$$(stat -c %y "$$root/run/gpulease/lease" 2>/dev/null || stat -f %Fm "$$root/run/gpulease/lease" 2>/dev/null || echo none)
{ read -r was; read -r since; } 2>/dev/null < "$$seen"
case $$since in ''|*[!0-9]*) since= ;; esac
if [ -z "$$since" ] || [ "$$mark" != "$$was" ] || [ "$$up" -lt "$$since" ]; then
  # If this cannot be written the silence goes on counting, and the machine goes off: unknown is not alive.
  printf '%s\\n%s\\n' "$$mark" "$$up" > "$$seen.part" && mv -f "$$seen.part" "$$seen" && exit 0
fi
[ $$((up - $${since:-0})) -lt $silence ] || exec /bin/sh "$${0%/*}/poweroff" "no client for $$((up - $${since:-0})) s"
"""

# $name is ours, $$ is the shell's. The here-documents that are quoted reach the disk as they are.
_ARM = Template("""\
set -eu
root=$${GPULEASE_ROOT:-}
lib=$$root/usr/local/lib/gpulease units=$$root/etc/systemd/system run=$$root/run/gpulease
umask 022
mkdir -p "$$lib" "$$units/timers.target.wants" "$$run"
cat > "$$lib/poweroff" <<'END'
${poweroff}END
cat > "$$lib/lease-check" <<'END'
${lease_check}END
chmod 755 "$$lib/poweroff" "$$lib/lease-check"
rm -f "$$run/seen"
touch "$$run/lease"
chmod 666 "$$run/lease"
left=$$(( $deadline - $$(date +%s) ))
[ "$$left" -le $most ] || left=$most
[ "$$left" -ge 1 ] || left=1
service() {
  cat > "$$units/$$1.service" <<END
[Unit]
Description=gpulease $lease: $$2
DefaultDependencies=no

[Service]
Type=oneshot
ExecStart=/bin/sh "$$lib/$$3" "$$2"
OOMScoreAdjust=-1000
END
}
timer() {
  cat > "$$units/$$1.timer" <<END
[Unit]
Description=gpulease $lease: $$1
DefaultDependencies=no

[Timer]
Unit=$$2.service
AccuracySec=1s
$$3

[Install]
WantedBy=timers.target
END
  ln -sf "$$units/$$1.timer" "$$units/timers.target.wants/$$1.timer"
}
service gpulease-deadline 'the deadline' poweroff
service gpulease-lease 'is a client there' lease-check
timer gpulease-deadline gpulease-deadline 'OnCalendar=$calendar
Persistent=true'
timer gpulease-deadline-twin gpulease-deadline "OnActiveSec=$${left}s"
timer gpulease-lease gpulease-lease 'OnActiveSec=${check}s
OnUnitInactiveSec=${check}s'
systemctl daemon-reload
systemctl --no-block restart $units
# A panic that hangs would outlive every timer; one that reboots comes back to them.
{ mkdir -p "$$root/etc/sysctl.d" && echo 'kernel.panic = 10' > "$$root/etc/sysctl.d/90-gpulease.conf"; } || :
[ ! -w "$$root/proc/sys/kernel/panic" ] || echo 10 > "$$root/proc/sys/kernel/panic" || :
""")

ARMED = """\
export TZ=UTC LC_ALL=C
root=${GPULEASE_ROOT:-}
for unit in gpulease-deadline.timer gpulease-deadline-twin.timer gpulease-lease.timer; do
  echo "== $unit"
  systemctl show --property=LoadState,ActiveState,SubState,Result,Unit,NextElapseUSecRealtime,NextElapseUSecMonotonic "$unit" 2>&1
done
echo "== machine"
echo "now=$(date +%s)"
up=; read -r up rest 2>/dev/null < "$root/proc/uptime"; echo "uptime=$up"
[ -w "$root/run/gpulease/lease" ] && echo lease=writable || echo lease=missing
[ -x "$root/usr/local/lib/gpulease/poweroff" ] && echo poweroff=here || echo poweroff=missing
echo "panic=$(cat "$root/proc/sys/kernel/panic" 2>/dev/null)"
"""


@dataclass(frozen=True)
class Armed:
    """What a machine said of its guards. `missing` names each that does not stand, and why; empty is good."""

    deadline: int | None  # when the calendar timer fires, seconds since 1970
    twin_left_s: int | None  # how long the twin still has
    clock: int | None  # the machine's own wall clock
    missing: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.missing


def user_data(
    *,
    lease: str,
    deadline_epoch: int,
    client_public: str,
    host_private: Secret,
    host_public: str,
    lease_silence_s: int = 900,
    max_run_s: int = 86_400,
) -> Secret:
    """The cloud-config. `max_run_s` bounds the twin when the machine's clock is behind; give the run's own length."""
    import yaml

    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private.reveal().strip() + "\n", "ed25519_public": _one_line(host_public)},
        "ssh_authorized_keys": [_one_line(client_public)],
        "disable_root": True,
        "ssh_pwauth": False,
        "bootcmd": [
            ["sh", "-c", arm_script(lease=lease, deadline_epoch=deadline_epoch, lease_silence_s=lease_silence_s, max_run_s=max_run_s)]
        ],
    }

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks, so that a person can read what the machine was told."""

    Dumper.add_representer(str, lambda d, s: d.represent_scalar("tag:yaml.org,2002:str", s, style="|" if "\n" in s else None))
    data = b"#cloud-config\n" + yaml.dump(config, Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=False).encode("ascii")
    if len(data) > LIMIT:
        raise RefusedError(
            f"the user data has {len(data)} bytes; at most {LIMIT}", why="EC2 takes no more", next="use Ed25519 keys without a comment"
        )
    return Secret(data)


def arm_script(*, lease: str, deadline_epoch: int, lease_silence_s: int = 900, max_run_s: int = 86_400) -> str:
    """The command that arms the guards, as root, on every boot."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.-]{0,63}", lease):
        raise RefusedError("not a lease id", why=f"{lease!r}", next="gpulease ls")
    if min(deadline_epoch, lease_silence_s, max_run_s) < 1 or deadline_epoch >= 1 << 33:
        raise RefusedError(
            "the guards need a deadline and lengths above zero",
            why=f"deadline {deadline_epoch}, silence {lease_silence_s} s, run {max_run_s} s",
            next="set budget.minutes in the profile",
        )
    return _ARM.substitute(
        lease=lease,
        deadline=deadline_epoch,
        calendar=datetime.fromtimestamp(deadline_epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        most=max_run_s,
        check=min(30, max(1, lease_silence_s // 10)),
        poweroff=POWEROFF,
        lease_check=Template(LEASE_CHECK).substitute(silence=lease_silence_s),
        units=" ".join(GUARD_UNITS),
    )


def armed(host: Host, deadline_epoch: int) -> Armed:
    """Read the guards back from the machine."""
    return parse_armed(host.run(ARMED, timeout=30.0).stdout, deadline_epoch)


def require_armed(host: Host, deadline_epoch: int) -> Armed:
    """As `armed`, raising HostError when one of them does not stand."""
    seen = armed(host, deadline_epoch)
    if not seen.good:
        raise HostError(
            f"{host.name}: {len(seen.missing)} of its own guards do not stand",
            why="; ".join(seen.missing),
            next="the same command again, or another image (launch.image): it needs systemd, cloud-init, and sudo without a password",
        )
    return seen


def parse_armed(text: str, deadline_epoch: int) -> Armed:
    """What `ARMED` printed, judged. What cannot be read counts as missing."""
    parts = _sections(text)
    machine = parts.get("machine", {})
    missing = [why for unit in GUARD_UNITS if (why := _idle(unit, parts.get(unit, {})))]
    deadline = instant(parts.get(DEADLINE, {}).get("NextElapseUSecRealtime", ""))
    if deadline != deadline_epoch:
        missing.append(f"{DEADLINE} fires at {'an unknown time' if deadline is None else deadline}; needs {deadline_epoch}")
    clock, uptime = _whole(machine.get("now", "")), _whole(machine.get("uptime", "").split(".")[0])
    ends = span(parts.get(TWIN, {}).get("NextElapseUSecMonotonic", ""))
    left = None if ends is None or uptime is None else int(ends) - uptime
    if left is None or clock is None:
        missing.append(f"{TWIN} does not say when it fires")
    elif left > max(0, deadline_epoch - clock) + TWIN_SLACK_S:
        missing.append(f"{TWIN} fires in {left} s; needs at most {max(0, deadline_epoch - clock)} s")
    missing += [f"{name} is not there" for name, good in (("lease", "writable"), ("poweroff", "here")) if machine.get(name) != good]
    return Armed(deadline, left, clock, tuple(missing))


def instant(text: str) -> int | None:
    """A systemd time stamp in UTC, or None when it cannot be read as one."""
    text = text.strip()
    if match := re.fullmatch(r"@([0-9]{1,12})", text):
        return int(match[1])
    match = re.fullmatch(r"(?:[A-Za-z]{3} )?([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,6})? (?:UTC|GMT)", text)
    if match is None:
        return None
    try:
        return int(datetime.strptime(f"{match[1]} {match[2]}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


_SPANS = {"y": 31_557_600, "month": 2_629_800, "w": 604_800, "d": 86_400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3, "us": 1e-6}


def span(text: str) -> float | None:
    """A systemd time span ("1h 2min 3.5s") in seconds, or None when there is none."""
    words = text.split()
    total = 0.0
    for word in words:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(y|month|w|d|h|min|s|ms|us)", word)
        if match is None:
            return None
        total += float(match[1]) * _SPANS[match[2]]
    return total if words else None


def _sections(text: str) -> dict[str, dict[str, str]]:
    parts: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            here = parts.setdefault(line[3:].strip(), {})
        elif "=" in line:
            name, _, value = line.partition("=")
            here[name.strip()] = value.strip()
    return parts


def _idle(unit: str, shown: dict[str, str]) -> str:
    state = shown.get("ActiveState", "")
    if state != "active":
        return f"{unit} is {state or 'unknown'} ({shown.get('LoadState') or 'no answer from systemctl'})"
    if shown.get("SubState") not in ("waiting", "running"):
        return f"{unit} will not fire again ({shown.get('SubState')})"
    return ""


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def _one_line(public: str) -> str:
    line = public.strip()
    if not re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\r\n]*)?", line):
        raise RefusedError(
            "not a public key line", why=f"{len(line)} characters that do not look like one", next="ssh-keygen -y -f KEYFILE"
        )
    return " ".join(line.split()[:2])
