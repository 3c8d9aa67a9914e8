"""What a machine is: fixed commands, their pure parsers, and what the profile needs held against them.

A fact is a POSIX sh command plus a parser (`parsers.py`). The command never changes with the profile, so nothing a
user writes can reach a shell here; the parser never touches the machine, so each is tested from captured text.
`read` keeps the raw text beside the value: a fact can be doubted later.

`verify` is pure and returns differences as sentences that quote the number seen and the number needed; `check`
reads what is needed and raises with all of them at once, because a machine is paid for while one fixes the first.
EC2 and nvidia-smi count GPU memory differently (a T4 is 16384 and 15360 MiB): requirements are in nvidia-smi's.

This file must not know about clouds, models or inference servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from provisioner.errors import RunError
from provisioner.model import Fact, Host, Json, Requirements
from provisioner.remote import parsers
from provisioner.remote.parsers import FactUnreadable, older, version_tuple

__all__ = ["FACTS", "FactUnreadable", "Source", "check", "exposed", "loopback", "older", "read", "verify", "version_tuple"]

# As the playbook serve.yaml chooses: the local disk where there is one, and it has as much room as the home.
_CACHE = r"""fast="${GPULEASE_ROOT:-}/opt/dlami/nvme"; cache="$HOME"
[ -d "$fast" ] || [ -n "${GPULEASE_ROOT:-}" ] || fast=$(lsblk -nrpo MODEL,MOUNTPOINT 2>/dev/null |
sed -n 's/^Amazon.*Instance.*Storage \(\/[^ ]*\)$/\1/p' | head -n 1)
room() { df -Pk "$1" 2>/dev/null | awk 'END { print $4 + 0 }'; }
[ -d "$fast" ] && [ "$(room "$fast")" -ge "$(room "$HOME")" ] && cache=$fast
"""
_QUERY = "LC_ALL=C nvidia-smi --format=csv,noheader,nounits"
_LISTEN = """if command -v ss >/dev/null 2>&1; then
echo '# ss'
if sudo -n true 2>/dev/null; then sudo -n ss -H -ltnp; else ss -H -ltnp; fi
else
echo '# proc'
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
fi"""


_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Source:
    """Where a fact comes from."""

    name: str
    command: str
    parse: Callable[[str], Json]
    timeout: float = 30.0


FACTS: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source("gpus", f"{_QUERY} --query-gpu=name,uuid,driver_version,memory.total,compute_cap,ecc.mode.current 2>&1", parsers.gpus, 60),
        Source("gpu_processes", f"{_QUERY} --query-compute-apps=pid,process_name,used_memory 2>&1", parsers.gpu_processes, 60),
        Source("mig", "LC_ALL=C nvidia-smi -L 2>&1", parsers.mig, 60),
        Source("disk", _CACHE + 'export LC_ALL=C; df -Pk "$HOME" 2>&1; df -Pk "$cache" 2>&1', parsers.disk),
        Source("listeners", _LISTEN, parsers.listeners),
        Source("python", "python3 -V 2>&1", parsers.python),
        Source("memory", "cat /proc/meminfo", parsers.memory),
        Source("os_release", 'cat "${GPULEASE_ROOT:-}/etc/os-release" 2>/dev/null || cat /etc/os-release', parsers.os_release),
        Source("systemd", 'if [ -d "${GPULEASE_ROOT:-}/run/systemd/system" ]; then echo yes; else echo no; fi', parsers.yes_no),
        Source("sudo", "if sudo -n true >/dev/null 2>&1; then echo yes; else echo no; fi", parsers.yes_no),
        Source("nofile", "ulimit -n", parsers.nofile),
        Source("vllm", "vllm --version 2>/dev/null", parsers.runtime_version, 120),
        Source(
            "sglang", "sglang version 2>/dev/null || python3 -c 'import sglang; print(sglang.__version__)'", parsers.runtime_version, 120
        ),
    )
}


def read(host: Host, name: str) -> Fact:
    """Ask the machine once. A command that fails raises, with the parser's reason when it has one."""
    source = FACTS[name]
    result = host.run(source.command, timeout=source.timeout, check=False)
    value = source.parse(result.stdout)
    if result.exit != 0:
        raise FactUnreadable(
            f"{name}: the command ended with {result.exit}",
            why=parsers._shown(result.stderr or result.stdout),
            next=parsers.look_with(source.command),
        )
    return Fact(name, value, source.command, result.stdout)


def check(host: Host, need: Requirements) -> tuple[Fact, ...]:
    """Read what `need` is about and raise one RunError with every difference; the facts when there is none."""
    names: tuple[str, ...] = ("python", "os_release", "memory", "disk", "nofile", "systemd", "sudo")
    if need.gpus:
        names += ("gpus", "mig", "gpu_processes")
    facts = tuple(read(host, name) for name in names)
    if wrong := verify({fact.name: fact.value for fact in facts}, need):
        raise RunError(
            "; ".join(wrong),
            why=f"read on {host.name} by nvidia-smi and df",
            next="change `needs` in the profile, or name types that have it in `needs.types`",
        )
    return facts


def verify(facts: Mapping[str, Json], need: Requirements) -> list[str]:
    """Every difference between the machine and the requirements, as sentences. Nothing is assumed for a missing fact."""
    wrong = []
    if need.gpus:
        wrong += _gpu_differences(facts["gpus"], facts["gpu_processes"], need)
        # A sliced GPU still shows its whole memory in the query, and gives a server one slice.
        if slices := facts["mig"]:
            wrong.append(f"the GPU is cut into {len(slices)} MIG slices ({', '.join(sorted(set(slices)))}); the profile needs whole GPUs")
    free = facts["disk"]["cache"]["free_gib"]
    if free < need.disk_gib:
        wrong.append(f"this machine has {free} GiB free at {facts['disk']['cache']['mount']}; the profile needs {need.disk_gib} GiB")
    return wrong


def _gpu_differences(gpus: Sequence[Json], processes: Sequence[Json], need: Requirements) -> list[str]:
    wrong = []
    has = " and ".join(_counted(gpus))
    if len(gpus) < need.gpus:
        wrong.append(f"this machine has {has}; the profile needs {need.gpus} GPUs")
    if need.gpu is not None and (other := [gpu for gpu in gpus if not same_gpu(need.gpu, gpu["name"])]):
        wrong.append(f"this machine has {' and '.join(_counted(other))}; the profile needs {need.gpu}")
    # nvidia-smi's figure moves by some MiB with driver and ECC; two percent is more than it moves and less than a card's step.
    if any(gpu["memory_total_mib"] * 100 < need.vram_mib * 98 for gpu in gpus):
        wrong.append(f"this machine has {has}; the profile needs {need.vram_mib} MiB")
    if need.driver_min is not None and (old := {gpu["driver"] for gpu in gpus if older(gpu["driver"], need.driver_min)}):
        wrong.append(f"this machine has NVIDIA driver {', '.join(sorted(old))}; the profile needs {need.driver_min} or newer")
    if processes:
        named = ", ".join(f"{row['name']} (pid {row['pid']}, {_mib(row['used_mib'])})" for row in processes[:5])
        wrong.append(f"{len(processes)} other process{'es' if len(processes) > 1 else ''} on the GPU: {named}; the profile needs it free")
    return wrong


def _counted(gpus: Sequence[Json]) -> list[str]:
    """How many of which kind, with how much memory; one part per kind."""
    kinds: dict[tuple[str, int], int] = {}
    for gpu in gpus:
        kind = (gpu["name"], gpu["memory_total_mib"])
        kinds[kind] = kinds.get(kind, 0) + 1
    return [f"{count} {_TIMES} {name} with {mib} MiB each" for (name, mib), count in kinds.items()]


def _mib(used: int | None) -> str:
    return "memory not known" if used is None else f"{used} MiB"


def same_gpu(wanted: str, name: str) -> bool:
    """Does the profile's short name mean this GPU? Whole words only: "L4" is "NVIDIA L4" and not "NVIDIA L40S"."""
    words, asked = (_gpu_words(text) for text in (name, wanted))
    return bool(asked) and any(words[at : at + len(asked)] == asked for at in range(len(words)))


def _gpu_words(text: str) -> list[str]:
    """Brand and form factor say nothing about which chip it is."""
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if not re.fullmatch(r"|nvidia|tesla|pcie|sxm\d?", word)]


def loopback(address: str) -> bool:
    """Can only this machine itself reach a socket bound to this address?"""
    import ipaddress

    if address == "*":
        return False
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def exposed(listeners: Iterable[Json], ssh_ports: Iterable[int] = (22,)) -> list[Json]:
    """Everything another machine could connect to, sshd aside."""
    allowed = set(ssh_ports)
    return [row for row in listeners if not loopback(row["address"]) and row["port"] not in allowed]
