"""`nvidia-smi` as a simulated machine answers it: the driver's own formats, exit codes and refusals.

The boards come from the machine's description; memory in use comes from what the simulated servers wrote into
ROOT/run/gpu/<pid> (a JSON list of MiB per board), counted only while that process lives, so a server that leaks
shows. Fields that are not known are refused in nvidia-smi's words, exit 2; a machine without a GPU answers as one
without a driver, exit 9. The table says SIMULATED; the query formats cannot, because programs parse them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .host_spec import Faults, Gpu

NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
CUDA = {
    "525": "12.0",
    "535": "12.2",
    "545": "12.3",
    "550": "12.4",
    "555": "12.5",
    "560": "12.6",
    "565": "12.7",
    "570": "12.8",
    "575": "12.9",
}
CUDA |= {"580": "13.0", "590": "13.1", "595": "13.2"}
STRANGER_MIB = 4096
MIB_FIELDS = frozenset({"memory.total", "memory.used", "memory.free", "memory.reserved"})
UNITS = {"utilization.gpu": "%", "utilization.memory": "%", "power.draw": "W", "power.limit": "W", "clocks.sm": "MHz", "clocks.mem": "MHz"}
ALIASES = {
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "clocks.current.sm": "clocks.sm",
    "clocks.current.memory": "clocks.mem",
}


@dataclass(frozen=True)
class Load:
    """One process that uses the boards."""

    pid: int
    name: str
    used_mib: tuple[int, ...]


class NvidiaSmi:
    def __init__(self, root: Path, gpus: Sequence[Gpu], faults: Faults) -> None:
        self._root, self._gpus, self._faults = root, gpus, faults

    def boards(self) -> list[Gpu]:
        if self._faults.on("no_gpu"):
            return []
        driver, memory = self._faults.text("driver"), self._faults.number("vram_mib")
        return [replace(g, driver=driver or g.driver, memory_mib=int(memory) if memory is not None else g.memory_mib) for g in self._gpus]

    def loads(self) -> list[Load]:
        found: list[Load] = []
        folder = self._root / "run/gpu"
        for path in sorted(folder.glob("[0-9]*")) if folder.is_dir() else ():
            try:
                os.kill(int(path.name), 0)
                used = tuple(int(x) for x in json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                continue
            found.append(Load(int(path.name), "VLLM::EngineCore", used))
        if self._faults.on("other_gpu_process"):
            found.append(Load(4242, "python3", (STRANGER_MIB,)))
        return found

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        boards = self.boards()
        if not boards:
            return 9, NO_DRIVER, ""
        query, style, only, listing = "", "", "", False
        kind = "gpu"
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if word in ("-i", "--id") and rest:
                only = rest.pop(0)
            elif word.startswith(("--id=", "-i=")):
                only = word.partition("=")[2]
            elif word.startswith("--query-gpu="):
                query = word.partition("=")[2]
            elif word.startswith("--query-compute-apps="):
                query, kind = word.partition("=")[2], "app"
            elif word.startswith("--format="):
                style = word.partition("=")[2]
            elif word in ("-L", "--list-gpus"):
                listing = True
            else:
                return 2, f'Invalid combination of input arguments. Please run "nvidia-smi -h" for help.\n\n(SIMULATED: {word!r})\n', ""
        numbered = [(n, g) for n, g in enumerate(boards) if only in ("", str(n), g.uuid)]
        if not numbered:
            return 6, "No devices were found\n", ""
        if listing:
            return 0, "".join(f"GPU {n}: {g.name} (UUID: {g.uuid})\n" for n, g in numbered), ""
        if not query:
            return 0, self._table(numbered), ""
        options = [o.strip() for o in style.split(",")]
        if "csv" not in options:
            return (
                2,
                f'Format "{style}" is not supported.\n\n' if style else '"--format=" switch is missing. Valid options are: "csv"\n\n',
                "",
            )
        fields = [f.strip() for f in query.split(",")]
        try:
            rows = self._gpu_rows(numbered, fields) if kind == "gpu" else self._app_rows(numbered, fields)
        except KeyError as e:
            return 2, f'Field "{e.args[0]}" is not a valid field to query.\n\n', ""
        units = "nounits" not in options
        out: list[str] = []
        if "noheader" not in options:
            out.append(", ".join(f + (f" [{_unit(f)}]" if _unit(f) else "") for f in fields))
        out += [", ".join(v + (f" {_unit(f)}" if units and _unit(f) and not v.startswith("[") else "") for f, v in row) for row in rows]
        return 0, "".join(line + "\n" for line in out), ""

    def _used(self, number: int) -> int:
        return sum(load.used_mib[number] for load in self.loads() if number < len(load.used_mib))

    def _gpu_rows(self, boards: list[tuple[int, Gpu]], fields: list[str]) -> list[list[tuple[str, str]]]:
        rows: list[list[tuple[str, str]]] = []
        for number, gpu in boards:
            used = self._used(number)
            reserved = gpu.memory_mib // 50  # what the driver keeps back on real boards: 471 of 23034 MiB on an L4
            known = {
                "name": gpu.name,
                "uuid": gpu.uuid,
                "driver_version": gpu.driver,
                "memory.total": str(gpu.memory_mib),
                "memory.reserved": str(reserved),
                "memory.used": str(used),
                "memory.free": str(max(0, gpu.memory_mib - reserved - used)),
                "compute_cap": gpu.compute_cap,
                "ecc.mode.current": "[N/A]" if gpu.ecc is None else "Enabled" if gpu.ecc else "Disabled",
                "ecc.errors.uncorrected.volatile.total": "[N/A]" if not gpu.ecc else "0",
                "index": str(number),
                "count": str(len(self.boards())),
                "pci.bus_id": f"00000000:{0x1E + number:02X}:00.0",
                "temperature.gpu": "34",
                "utilization.gpu": "0",
                "utilization.memory": "0",
                "power.draw": "17.20",
                "power.limit": "72.00",
                "pstate": "P8",
                "clocks.sm": "210",
                "clocks.mem": "405",
                "persistence_mode": "Enabled",
                "compute_mode": "Default",
                "mig.mode.current": "[N/A]",
                "display_active": "Disabled",
                "timestamp": datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S.%f")[:-3],
            }
            rows.append([(f, known[ALIASES.get(f, f)]) for f in fields])
        return rows

    def _app_rows(self, boards: list[tuple[int, Gpu]], fields: list[str]) -> list[list[tuple[str, str]]]:
        rows: list[list[tuple[str, str]]] = []
        shown = {"pid", "process_name", "name", "used_memory", "used_gpu_memory", "gpu_uuid", "gpu_name", "gpu_bus_id", "timestamp"}
        for field in fields:
            if field not in shown:
                raise KeyError(field)
        for load in self.loads():
            for number, gpu in boards:
                if number < len(load.used_mib) and load.used_mib[number]:
                    known = {"pid": str(load.pid), "process_name": load.name, "name": load.name, "gpu_uuid": gpu.uuid, "gpu_name": gpu.name}
                    known |= dict.fromkeys(("used_memory", "used_gpu_memory"), str(load.used_mib[number]))
                    known |= {"gpu_bus_id": f"00000000:{0x1E + number:02X}:00.0", "timestamp": f"{datetime.now(UTC):%Y/%m/%d %H:%M:%S}.000"}
                    rows.append([(f, known[f]) for f in fields])
        return rows

    def _table(self, boards: list[tuple[int, Gpu]]) -> str:
        driver = boards[0][1].driver
        cuda = CUDA.get(driver.split(".")[0], "N/A")
        line = "+" + "-" * 89 + "+\n"
        out = f"{datetime.now(UTC):%a %b %e %H:%M:%S %Y}\n{line}| {'SIMULATED by gpulease: no such GPU is in this computer':<87} |\n{line}"
        out += f"| {f'NVIDIA-SMI {driver}':<26}Driver Version: {driver:<15}CUDA Version: {cuda:<16} |\n{line}"
        for number, gpu in boards:
            used = f"{self._used(number)}MiB / {gpu.memory_mib}MiB"
            out += f"| {f'{number}  {gpu.name}':<40}{used:>24}{'0%      Default':>22}  |\n"
        out += line + "| Processes:" + " " * 78 + "|\n"
        for load in self.loads():
            out += f"| {f'0   N/A  N/A  {load.pid:>12}      C   {load.name}':<70}{f'{load.used_mib[0]}MiB':>16} |\n"
        return out + line


def _unit(field: str) -> str:
    if field in MIB_FIELDS or field in ("used_memory", "used_gpu_memory"):
        return "MiB"
    return UNITS.get(ALIASES.get(field, field), "")
