"""What a machine printed, turned into values: one pure function per fact, no I/O.

Each parser takes the whole text of one fixed command (standard error included) and returns plain Json: dicts, lists,
str, int, bool, None. It never guesses: a column too many, a word where a number should be, an empty answer or the
tool's own complaint raise `FactUnreadable`, which quotes the line that could not be read. `None` appears only where
the tool itself says that it does not know ("[N/A]", "-").

Because text goes in and a value comes out, a capture from a real machine becomes a test by being put in a file
(`tests/facts/`). All text is hostile: a GPU or process can be called anything, so names pass through `clean` here,
before anything else can see them. This file must not know how the text was fetched, nor what is required.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from provisioner.errors import HostError
from provisioner.model import Json

UNKNOWN = {"[N/A]", "N/A", "[Not Supported]", "[Not Found]", "-"}
_MIB = 1024


def look_with(command: str) -> str:
    """What to do about a machine that cannot be read: a rented one is gone when this is read, one of the user's own stays."""
    return f"another image or type in the profile (launch.image, needs.types); on a machine of your own: {command}"


class FactUnreadable(HostError):
    """A command on the machine printed something that cannot be read as the fact it was asked for."""


def gpus(text: str) -> Json:
    """`nvidia-smi --query-gpu=name,uuid,driver_version,memory.total,compute_cap,ecc.mode.current`, CSV without header or units."""
    found = []
    for line in _nvidia_lines(text, "gpus"):
        # A name may hold commas, the five fields behind it cannot.
        name, *rest = line.rsplit(", ", 5)
        if len(rest) != 5:
            raise _unreadable("gpus", line, "name, uuid, driver, memory, compute capability, ecc")
        uuid, driver, memory, capability, ecc = (word.strip() for word in rest)
        if not re.fullmatch(r"(GPU|MIG)-[0-9A-Za-z-]{1,60}", uuid):
            raise _unreadable("gpus", line, "a uuid that begins with GPU- or MIG-")
        version_tuple(driver)
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", capability):
            raise _unreadable("gpus", line, "a compute capability such as 8.9")
        found.append(
            {
                "name": _name(name, "gpus", line),
                "uuid": uuid,
                "driver": driver,
                "memory_total_mib": _int(memory, "gpus", line),
                "compute_cap": capability,
                "ecc": _one_of(ecc, {"Enabled": True, "Disabled": False}, "gpus", line),
            }
        )
    if not found:
        raise FactUnreadable("nvidia-smi named no GPU", why="its answer was empty", next=_LOOK)
    return found


def gpu_processes(text: str) -> Json:
    """`nvidia-smi --query-compute-apps=pid,process_name,used_memory`, CSV without header or units. No line means no process."""
    found = []
    for line in _nvidia_lines(text, "gpu_processes"):
        pid, _, rest = line.partition(", ")
        name, comma, memory = rest.rpartition(", ")
        if not comma:
            raise _unreadable("gpu_processes", line, "pid, name, memory")
        used = None if memory.strip() in UNKNOWN else _int(memory.strip(), "gpu_processes", line)
        found.append({"pid": _int(pid.strip(), "gpu_processes", line), "name": _name(name, "gpu_processes", line), "used_mib": used})
    return found


def mig(text: str) -> Json:
    """`nvidia-smi -L`: the profile of each MIG slice, such as "1g.10gb"; none when no GPU is cut up."""
    found = []
    for line in _nvidia_lines(text, "mig"):
        whole = re.match(r"GPU \d+: .* \(UUID: GPU-[0-9A-Za-z-]+\)$", line)
        slice_ = re.match(
            r"\s+MIG ((?:[0-9]c\.)?[0-9]{1,2}g\.[0-9]{1,4}gb[0-9A-Za-z.+-]{0,20})\s+Device\s+[0-9]+: \(UUID: MIG-\S+\)$", line
        )
        if slice_:
            found.append(slice_[1])
        elif not whole:
            raise _unreadable("mig", line, "GPU n: name (UUID: …) or a MIG device below it")
    return found


def disk(text: str) -> Json:
    """`df -Pk` of the home and of the cache folder: the free space of each, in whole GiB rounded down."""
    rows = [line for line in _lines(text) if not line.startswith("Filesystem ")]
    if len(rows) != 2:
        raise FactUnreadable(f"df printed {len(rows)} file systems; 2 were asked for", why=_shown(text), next=look_with("df -Pk ~"))
    return {name: _df(row) for name, row in zip(("home", "cache"), rows, strict=True)}


def _df(line: str) -> Json:
    found = re.fullmatch(r".*?\s([0-9]{1,15})\s+([0-9]{1,15})\s+(-?[0-9]{1,15})\s+(?:[0-9]{1,3}%|-)\s+(/.*)", line)
    if found is None:
        raise _unreadable("disk", line, "file system, size, used, available, percent, mount point")
    size, _, free, mount = found.groups()
    # Available is negative when root's reserve has been eaten into: none of it is ours.
    return {"mount": _name(mount, "disk", line), "size_gib": int(size) // _MIB**2, "free_gib": max(0, int(free)) // _MIB**2}


def listeners(text: str) -> Json:
    """`ss -H -ltnp`, or /proc/net/tcp and tcp6 where there is no ss; the first line says which."""
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    if first == "# ss":
        found = [_ss(line) for line in _lines(rest)]
    elif first == "# proc":
        found = [row for line in _lines(rest) if not re.match(r"\s*sl\s", line) for row in _proc_tcp(line)]
    else:
        raise _unreadable("listeners", first, "# ss or # proc as the first line")
    return sorted(found, key=lambda row: (row["port"], row["address"]))


def _ss(line: str) -> Json:
    words = line.split(None, 5)
    if len(words) < 5 or words[0] != "LISTEN":
        raise _unreadable("listeners", line, "LISTEN, two queues, local and peer address")
    address, colon, port = words[3].rpartition(":")
    if not colon:
        raise _unreadable("listeners", line, "address:port")
    owner = re.search(r'\(\("(.*?)",pid=([0-9]{1,15})[,)]', words[5]) if len(words) == 6 else None
    return {
        "address": _address(address, line),
        "port": _port(port, line),
        "process": _name(owner[1], "listeners", line) if owner else None,
        "pid": int(owner[2]) if owner else None,
    }


def _address(address: str, line: str) -> str:
    bare = address.partition("%")[0] if not address.startswith("[") else address[1:].partition("]")[0].partition("%")[0]
    if bare == "*" or re.fullmatch(r"[0-9A-Fa-f:.]{2,45}", bare):
        return bare.lower()
    raise _unreadable("listeners", line, "an IP address")


def _port(text: str, line: str) -> int:
    port = _int(text, "listeners", line)
    if not 0 < port < 65536:
        raise _unreadable("listeners", line, "a port from 1 to 65535")
    return port


def _proc_tcp(line: str) -> Iterable[Json]:
    """One row of the kernel's table; addresses are 32-bit words in the machine's (little-endian) order."""
    import ipaddress

    found = re.match(r"\s*\d+:\s+([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})\s+[0-9A-F]+:[0-9A-F]{4}\s+([0-9A-F]{2})\s", line)
    if found is None:
        raise _unreadable("listeners", line, "a row of /proc/net/tcp")
    words, port, state = found.groups()
    if state != "0A":  # not LISTEN
        return
    raw = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    ip = ipaddress.ip_address(raw)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    yield {"address": f"::ffff:{mapped}" if mapped else str(ip), "port": _port(str(int(port, 16)), line), "process": None, "pid": None}


def python(text: str) -> Json:
    """`python3 -V`: "3.12.3"."""
    line = _one_line(text, "python")
    found = re.fullmatch(r"Python ([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})\S*", line)
    if found is None:
        raise _unreadable("python", line, "Python 3.x.y")
    return found[1]


def memory(text: str) -> Json:
    """/proc/meminfo: total and available, in MiB."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+([0-9]{1,15}) kB$", text.replace("\r\n", "\n"), re.MULTILINE))
    if len(found) != 2:
        raise FactUnreadable("/proc/meminfo does not give MemTotal and MemAvailable", why=_shown(text), next=look_with("cat /proc/meminfo"))
    return {"total_mib": int(found["MemTotal"]) // _MIB, "available_mib": int(found["MemAvailable"]) // _MIB}


def os_release(text: str) -> Json:
    """/etc/os-release: id and version, as the distribution writes them."""
    found = {}
    for line in _lines(text):
        if match := re.fullmatch(r"""(ID|VERSION_ID|PRETTY_NAME)=(["']?)(.*)\2""", line):
            found[match[1]] = _name(match[3], "os_release", line)
    if "ID" not in found:
        raise FactUnreadable("/etc/os-release has no ID", why=_shown(text), next=look_with("cat /etc/os-release"))
    return {"id": found["ID"], "version": found.get("VERSION_ID"), "name": found.get("PRETTY_NAME")}


def yes_no(text: str) -> Json:
    """A test that prints exactly yes or no; anything else is not an answer."""
    line = _one_line(text, "yes_no")
    return _one_of(line, {"yes": True, "no": False}, "yes_no", line)


def nofile(text: str) -> Json:
    """`ulimit -n`; unlimited is written as None, because it is no number."""
    line = _one_line(text, "nofile")
    return None if line == "unlimited" else _int(line, "nofile", line)


def runtime_version(text: str) -> Json:
    """`vllm --version` or `sglang version`: the last line that is a version; warnings may come before it."""
    for line in reversed(_lines(text)):
        if found := re.fullmatch(
            r"(?:(?:vllm|sglang)(?: version:)? )?v?([0-9]{1,4}\.[0-9]{1,4}[0-9A-Za-z.+-]{0,40})(?: \(.*\))?", line.strip()
        ):
            return found[1]
    raise FactUnreadable("the inference server's version cannot be read", why=_shown(text))


def version_tuple(text: str) -> tuple[int, ...]:
    """ "570.86.15" -> (570, 86, 15)."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}", text):
        raise FactUnreadable(f"{_shown(text)} is not a driver version", why="expected digits and dots, such as 570.86.15", next=_LOOK)
    return tuple(int(part) for part in text.split("."))


def older(have: str, need: str) -> bool:
    """Is `have` before `need`, as far as `need` is written out? "570.86" is not older than "570"."""
    needed = version_tuple(need)
    return version_tuple(have)[: len(needed)] < needed


_LOOK = look_with("nvidia-smi")
_COMPLAINTS = {
    "couldn't communicate with the NVIDIA driver": "the NVIDIA driver is not loaded, or does not match the running kernel",
    "Driver/library version mismatch": "the driver was upgraded and the machine not restarted since",
    "Unable to determine the device handle": "a GPU does not answer (fallen off the bus, or being reset)",
    "GPU is lost": "a GPU has fallen off the bus",
    "No devices were found": "the driver is loaded, and sees no GPU",
    "not found": "nvidia-smi is not installed here",
    "No such file or directory": "nvidia-smi is not installed here",
    "is not a valid field to query": "the driver is too old to know a column that was asked for",
    "Permission denied": "this user may not use the GPU",
    "Insufficient Permissions": "this user may not use the GPU",
}


def _nvidia_lines(text: str, fact: str) -> list[str]:
    """The CSV rows; nvidia-smi's own complaints, which it prints to either stream, become errors with a reason."""
    lines = _lines(text)
    for line in lines:
        csv_row = re.match(r"(.*, (GPU|MIG)-[0-9A-Za-z-]+, |\d+, )", line)
        for fragment, why in _COMPLAINTS.items():
            if fragment in line and not csv_row:
                raise FactUnreadable(f"nvidia-smi failed: {_shown(line)}", why=why, next=_LOOK)
    return [line for line in lines if not line.startswith(("WARNING: infoROM", "No running processes found"))]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]


def _one_line(text: str, fact: str) -> str:
    lines = _lines(text)
    if len(lines) != 1:
        raise FactUnreadable(f"{fact}: {len(lines)} lines where one was expected", why=_shown(text))
    return lines[0].strip()


def _int(text: str, fact: str, line: str) -> int:
    # ASCII digits only: int() would also take "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise _unreadable(fact, line, f"a whole number in place of {_shown(text)}")
    return int(text)


def _one_of(word: str, meaning: dict[str, bool], fact: str, line: str) -> bool | None:
    if word in meaning:
        return meaning[word]
    if word in UNKNOWN:
        return None
    raise _unreadable(fact, line, " or ".join(meaning))


def _name(text: str, fact: str, line: str) -> str:
    from provisioner.clean import clean

    name = clean(text).strip()[:120]
    if not name:
        raise _unreadable(fact, line, "a name")
    return name


def _shown(text: str) -> str:
    from provisioner.clean import clean

    words = " ".join(clean(text.strip()).split())
    return repr(words[:200] + "…" if len(words) > 200 else words)


def _unreadable(fact: str, line: str, expected: str) -> FactUnreadable:
    return FactUnreadable(f"{fact}: cannot read {_shown(line)}", why=f"expected {expected}")
