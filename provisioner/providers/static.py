"""A machine somebody else rented: any Linux host that can be reached over SSH, with a GPU or without.

There is nothing to rent, so the one thing created is a lock on the host: a folder made by `mkdir`, which only one run
can make. It names its lease, and the lease's processes and files are found from there; removing the lock stops the
processes, deletes the files and only then lets go. Every verb is one short SSH login of its own.

The machine is not ours to stop. Nothing here is billed by us: the spend that gpulease claims for it is 0 by gpulease,
and its price, when the user gives one, is the user's word. `released` means that our processes, files and lock were
seen gone, and says nothing about the machine's own bill.

A process counts as ours only while its session leader runs in the lease's folder or names the lease, so that a number
that was given to somebody else's process is left alone. Must not know what the processes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from typing import cast

from cost import OWN_WORD, Price
from provisioner.clean import clean
from provisioner.errors import HostError, NotCreated, ProviderError, RefusedError
from provisioner.model import Host, Inventory, Json, LaunchSpec, Looked, Offer, Phase, Requirements, Resource, Traits

Login = Callable[..., AbstractContextManager[Host]]
LOCK, PROCESS, FILES = "host-lock", "process", "files"
NOTE = "the machine is not ours to stop: gpulease removes its own processes, files and lock, and the machine goes on"
BUSY, CANNOT, STILL = 40, 41, 42

_LEASE = r"r-[0-9a-z]{8}t[0-9a-z]{6}z-[0-9a-z]{8}"
_TOKEN = r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}"

_COMMON = r"""
base=$(cd "$HOME" && pwd -P)/.gpulease || exit 41
lock=$base/lock
root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }
word() { { read -r answer < "$1"; } 2>/dev/null || answer=; }
unit_of() { word "$base/$1/server.unit"; case $answer in gpulease-*"$1"*) unit=${answer%.service}.service ;; *) unit= ;; esac; }
# Who is left of the session that server.pid leads, into $found. A zombie has ended.
members() {
  found= pid=
  word "$base/$1/server.pid"
  case $answer in ''|0|1|*[!0-9]*) return 1 ;; esac
  pid=$answer
  { read -r line < "/proc/$pid/stat"; } 2>/dev/null || line=
  case ${line##*) } in
    ''|Z*|X*) ;;
    *)
      [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$base/$1" ] ||
        grep -qsF -- "$1" "/proc/$pid/cmdline" "/proc/$pid/environ" || return 1 ;;
  esac
  # getline, because processes vanish while they are listed and awk would stop at the first that did; and the list must
  # say that it is whole, because a list that stopped early would call a living server gone.
  found=$(awk -v s="$pid" 'BEGIN {
    for (i = 1; i < ARGC; i++) {
      if ((getline line < ARGV[i]) > 0) {
        seen++; n = line + 0; sub(/^.*\) /, "", line); split(line, f, " ")
        if (f[4] == s && f[1] !~ /[ZX]/) print n
      }
      close(ARGV[i])
    }
    if (seen) print "end"
  }' /proc/[0-9]*/stat 2>/dev/null)
  case $found in *end) found=${found%end} ;; *) echo "the processes cannot be listed" >&2; exit 43 ;; esac
  [ -n "$found" ]
}
stop() {
  unit_of "$1"
  if [ -n "$unit" ] && systemctl is-active --quiet "$unit" 2>/dev/null; then root systemctl stop "$unit" >&2; fi
  for signal in TERM KILL; do
    tries=0
    # A killed process still needs a processor to end on, and on a busy machine that is no matter of the grace it was given.
    [ "$signal" = TERM ] || [ "$grace" -ge 50 ] || grace=50
    while members "$1"; do
      # Asked once, killed until nobody is left: what was born between the list and the signal stands in the next list.
      [ "$signal" = TERM ] && [ "$tries" -gt 0 ] || kill -s "$signal" $found 2>/dev/null
      [ "$tries" -lt "$grace" ] || continue 2
      sleep 0.1; tries=$((tries + 1))
    done
    return 0
  done
  echo "still running after SIGKILL:" $found >&2
  exit 42
}
"""

_CREATE = (
    _COMMON
    + r"""
umask 077
mkdir -p "$base" || exit 41
# An empty lock is one whose maker died between two lines; after a minute it is nobody's.
[ -z "$(find "$lock" -maxdepth 0 -type d -mmin +1 2>/dev/null)" ] || rmdir "$lock" 2>/dev/null
if mkdir "$lock" 2>/dev/null; then
  if printf '%s\n' "$token" > "$lock/token" && mkdir -p "$base/$lease" && printf '%s\n' "$lease" > "$lock/lease"; then exit 0; fi
  rm -f "$lock/token" "$lock/lease"; rmdir "$lock"; exit 41
fi
[ -d "$lock" ] || exit 41
word "$lock/lease"; holder=$answer
word "$lock/token"
[ "$holder" = "$lease" ] && [ "$answer" = "$token" ] && exit 0
echo "holder ${holder:-?}"
exit 40
"""
)

_LOOK = (
    _COMMON
    + r"""
date -u +'date %Y-%m-%dT%H:%M:%SZ'
if [ -d "$lock" ]; then
  word "$lock/lease"; holder=$answer; word "$lock/token"
  case $holder in ''|*[!0-9a-z-]*) holder="?" ;; esac
  case $answer in ''|*[!0-9A-Za-z._-]*) answer="?" ;; esac
  echo "lock $holder $answer"
fi
for folder in "$base"/r-????????t??????z-????????; do
  lease=${folder##*/}
  case $lease in *[!0-9a-z-]*) continue ;; esac
  [ -d "$folder" ] || continue
  echo "files $lease"
  unit_of "$lease"
  if members "$lease"; then echo "process $lease $pid"
  elif [ -n "$unit" ] && systemctl is-active --quiet "$unit" 2>/dev/null; then echo "process $lease ${unit%.service}"; fi
done
echo end
"""
)

_REMOVE = (
    _COMMON
    + r"""
stop "$lease"
[ "$kind" != process ] || exit 0
rm -rf -- "$base/$lease" || exit 41
[ "$kind" = host-lock ] || exit 0
word "$lock/lease"
[ "$answer" = "$lease" ] || exit 0
# In one step: a lock without its name would look like somebody else's.
mv -- "$lock" "$base/gone.$lease" && rm -rf -- "$base/gone.$lease"
"""
)

_HARDWARE = """nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits 2>/dev/null || :
"""


class StaticProvider:
    """One host as a provider. `login` opens SSH and is found by itself; `price_micro_usd_per_hour` is the user's word."""

    name = "static"
    traits = Traits(settle_s=5.0, second_look_s=1.0, powers_itself_off=False)

    def __init__(
        self,
        host: str,
        port: int = 22,
        identity: str = "",
        hostKey: str = "",  # as the settings in the journal are spelt
        price_micro_usd_per_hour: int | None = None,
        *,
        route: Callable[[str, int], tuple[str, int]] | None = None,
        login: Login | None = None,
        grace_s: float = 10.0,
    ) -> None:
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_.-]{0,31})@([0-9A-Za-z][0-9A-Za-z.:-]{0,252})", host)
        if match is None or not 0 < port < 65536:
            raise RefusedError(
                "not a host to log in to", why=f"{clean(host, limit=80)!r} port {port}; needs user@address", next="--host user@address"
            )
        if not re.fullmatch(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]{40,}", hostKey):
            raise RefusedError(
                f"the host key of {match[2]} is not known",
                why="a machine is only talked to when its key was known before",
                next=f"ssh-keyscan -p {port} {match[2]}, compare it with the machine's own, then give it as hostKey: 'ssh-ed25519 AAAA…'",
            )
        if not identity:
            raise RefusedError(
                "no key to log in with", why="agents and ~/.ssh are never searched", next="give the path of a private key as identity"
            )
        self.user, self.address = match[1], match[2]
        self.host, self.port, self.identity, self.host_key, self.price = host, port, identity, hostKey, price_micro_usd_per_hour
        self.anchor = ""
        self._route, self._login, self._grace = route, login, grace_s

    def settings(self) -> dict[str, Json]:
        known: dict[str, Json] = {"host": self.host, "port": self.port, "identity": self.identity, "hostKey": self.host_key}
        return known if self.price is None else {**known, "price_micro_usd_per_hour": self.price}

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """The machine as it is, or RefusedError when it cannot meet the need."""
        _, said, _ = self._run(_HARDWARE, {})
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        vcpus = int(lines[0]) if lines and re.fullmatch("[0-9]{1,5}", lines[0]) else 0
        boards = [m for line in lines[1:] if (m := re.fullmatch(r"(?:NVIDIA )?([\w ./()+-]{1,60}), ([0-9]{1,8})", line))]
        names, memory = sorted({m[1] for m in boards}), [int(m[2]) for m in boards]
        unmet = _unmet(need, names, memory, vcpus)
        if unmet:
            raise RefusedError(
                f"{self.host} does not meet the need: {unmet}", why=f"it shows {', '.join(names) or 'no GPU'}", next="choose another host"
            )
        today = datetime.now(UTC).date().isoformat()
        price = (
            Price(0, "not billed by gpulease: the machine is yours", today) if self.price is None else Price(self.price, OWN_WORD, today)
        )
        memory_mib = min(memory) if memory else None
        return [Offer(self.name, self.address, "host", " + ".join(names), len(boards), memory_mib, vcpus, price)]

    def steps(self, spec: LaunchSpec) -> tuple[str, ...]:
        return (LOCK,)

    def create(self, kind: str, spec: LaunchSpec, *, lease: str, token: str, made: Mapping[str, Resource]) -> Resource:
        if kind != LOCK or not re.fullmatch(_LEASE, lease) or not re.fullmatch(_TOKEN, token):
            raise NotCreated(
                f"cannot make {clean(kind, limit=40)} for lease {clean(lease, limit=60)}", why="not a name of ours", next="gpulease ls"
            )
        code, said, why = self._run(_CREATE, {"lease": lease, "token": token}, creating=True)
        if code == 0:
            return self._resource(LOCK, lease, "", "held", token)
        holder = re.fullmatch(rf"holder ({_LEASE})", said.strip())
        if code == BUSY:
            raise NotCreated(
                f"{self.host} is in use by {'lease ' + holder[1] if holder else 'a run that did not leave its name'}",
                why="one run at a time: two would measure each other",
                next=f"gpulease release {holder[1]}"
                if holder
                else f"ssh -p {self.port} {self.host} rmdir .gpulease/lock, if nothing runs there",
                provider_code="Busy",
            )
        if code == CANNOT:
            raise NotCreated(
                f"{self.host}: the lock cannot be made", why=why, next="the home folder must be writable", provider_code="CannotLock"
            )
        raise ProviderError(f"{self.host}: making the lock ended with exit code {code}", why=why, next=f"gpulease release {lease}")

    def verify_launch(self, machine: Resource, spec: LaunchSpec) -> Sequence[str]:
        """Nothing was launched; what the machine is, its facts say."""
        return ()

    def inventory(self, lease: str | None = None) -> Inventory:
        code, said, why = self._run(_LOOK, {})
        lines = said.splitlines()
        if code != 0 or not lines or lines[-1] != "end":
            raise ProviderError(f"{self.host}: the list of what is there is not whole", why=why or f"exit code {code}", next="ask again")
        found: list[Resource] = []
        locked, date = "", None
        for line in lines[:-1]:
            if match := re.fullmatch(r"date ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)", line):
                date = match[1]
            elif match := re.fullmatch(rf"lock ({_LEASE}|\S+) ({_TOKEN}|\?)", line):
                # A lock that names no lease is nobody's that we know of; the next create clears or names it.
                if re.fullmatch(_LEASE, match[1]):
                    locked = match[1]
                    found.append(self._resource(LOCK, locked, "", "held", match[2]))
            elif match := re.fullmatch(rf"process ({_LEASE}) ([\w.-]{{1,100}})", line):
                found.append(self._resource(PROCESS, match[1], match[2], "running"))
            elif match := re.fullmatch(rf"files ({_LEASE})", line):
                if match[1] != locked:  # under the lock they go with it; without it they are all that is left
                    found.append(self._resource(FILES, match[1], "", "left behind"))
            else:
                raise ProviderError(
                    f"{self.host} printed something else", why=clean(line, limit=200), next="look at the login's shell start-up files"
                )
        looked = tuple(Looked(kind, self.address) for kind in (LOCK, PROCESS, FILES))
        return Inventory(tuple(r for r in found if lease in (None, r.lease)), looked, (), date)

    def observe(self, resource: Resource) -> Resource:
        lease = self._lease_of(resource)
        seen = [r for r in self.inventory(lease).resources if r.id == resource.id]
        return seen[0] if seen else replace(resource, phase=Phase.GONE, state="absent", lease=lease)

    def remove(self, resource: Resource) -> Mapping[str, Json]:
        lease = self._lease_of(resource)
        values = {"lease": lease, "kind": resource.kind, "grace": str(max(1, int(self._grace * 10)))}
        code, _, why = self._run(_REMOVE, values, timeout=60.0 + 3 * self._grace)
        if code == 0:
            return {"state": "removed"}
        what = "its processes do not end" if code == STILL else f"removing ended with exit code {code}"
        raise ProviderError(
            f"{self.host}: {what}",
            why=why,
            next=f"ssh -p {self.port} {self.host}, and look at ~/.gpulease/{lease}",
            provider_code=str(code),
        )

    def _resource(self, kind: str, lease: str, name: str, state: str, token: str | None = None) -> Resource:
        id = "/".join(filter(None, (f"{self.address}:{self.port}", lease, kind, name)))
        facts: dict[str, Json] = {"address": self.address, "port": self.port, "user": self.user, "note": NOTE}
        token = None if token == "?" else token
        return Resource(kind, id, Phase.HERE, state, token, billed=False, region=self.address, lease=lease, facts=facts)

    def _lease_of(self, resource: Resource) -> str:
        parts = resource.id.split("/")
        if len(parts) < 3 or parts[0] != f"{self.address}:{self.port}" or not re.fullmatch(_LEASE, parts[1]):
            raise ProviderError(f"not something of {self.host}", why=clean(resource.id, limit=200), next="gpulease ls")
        return parts[1]

    def _run(self, script: str, values: Mapping[str, str], *, creating: bool = False, timeout: float = 60.0) -> tuple[int, str, str]:
        """One login, one command: its exit code, its stdout, and its last words."""
        # Folders of one floor do not import each other; this provider's cloud is SSH, so it is found by name.
        login = self._login or cast(Login, import_module("provisioner.remote.ssh").connect)
        route = {} if self._route is None else {"route": self._route}
        sent = False
        try:
            with login(self.address, self.port, self.user, client_key=self.identity, host_key=self.host_key, **route) as host:
                sent = True
                result = host.run(script, values=values, timeout=timeout, check=False)
        except HostError as e:
            if creating and not sent:  # not even asked: nothing can have been made
                raise NotCreated(e.what, why=e.why, next=e.next, provider_code=type(e).__name__) from e
            raise ProviderError(e.what, why=e.why, next=e.next, provider_code=type(e).__name__) from e
        return result.exit, result.stdout, clean(result.stderr, limit=300)


def known_host_key(address: str, port: int = 22, user: str = "") -> str:
    """The host key that the user's `known_hosts` has, or RefusedError that shows the one seen and how to accept it."""
    return cast(str, import_module("provisioner.remote.known").host_key_or_refuse(address, port, user=user))


def _unmet(need: Requirements, names: Sequence[str], memory: Sequence[int], vcpus: int) -> str:
    if not vcpus:
        return "it does not say how many processors it has"
    if len(memory) < need.gpus:
        return f"{len(memory)} GPUs; needs {need.gpus}"
    if need.gpus and need.gpu and not any(need.gpu.lower() in name.lower() for name in names):
        return f"GPU {' + '.join(names)}; needs {need.gpu}"
    if need.gpus and min(memory) < need.vram_mib:
        return f"{min(memory)} MiB per GPU; needs {need.vram_mib} MiB"
    return ""
