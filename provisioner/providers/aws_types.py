"""What an EC2 instance type is: its GPUs, their memory as the driver shows it, and whether it meets a need.

Two sources meet here. EC2 itself (DescribeInstanceTypes) knows which types there are, their vCPUs and GPUs; the dated
catalog in the package (tools/refresh_catalog.py) knows what nvidia-smi shows on real machines, which is not what EC2
says (an L4 is 22888 MiB to EC2 and 23034 MiB to its driver), and stands in for EC2 where that cannot be asked. A type
that only EC2 knows is shown with EC2's figure and meets no need for memory: nobody has seen what its driver shows.

A part of a GPU is never a GPU. EC2 counts the L4 of a g6f as 0 or 1, depending on the day; how much of one it is, its
memory says. A need is met with 2 % of tolerance. This file must not send anything and must not know prices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

from provisioner.clean import clean
from provisioner.model import Requirements

TOLERANCE_PERCENT = 2
WHOLE_MIB = {"L4": 22888}
"""EC2's figure for a whole GPU, of those that are also sold in parts."""

FAMILIES = ("g*", "p*")
"""Where EC2's NVIDIA GPUs are; DescribeInstanceTypes has no filter for GPUs."""


@dataclass(frozen=True)
class Type:
    name: str
    gpu: str  # "NVIDIA L4"; "" without one
    gpus: int  # whole ones
    vcpus: int
    arch: str
    vram_mib: int | None = None  # per GPU as the driver shows it; None: nobody has written it down
    ec2_mib: int | None = None  # per GPU as EC2 says
    verified: bool = False  # the driver's figure was read off a real machine
    part: Fraction | None = None  # of one GPU, 0 where nobody says how much; None for whole ones
    ways: tuple[str, ...] = ("on-demand", "spot")  # how EC2 sells it


@dataclass(frozen=True)
class Misfit:
    """Why a type does not meet a need. `near`: worth telling; what is of another family or size altogether is not."""

    kind: str
    why: str
    near: bool = True


@cache
def catalog() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((files("provisioner.providers") / "aws_catalog.json").read_text(encoding="utf-8"))
    return data


def row_of(type: str) -> Mapping[str, Any] | None:
    """What the catalog says about one instance type."""
    return _rows().get(type)


def known() -> dict[str, Type]:
    """Every type of the catalog."""
    return {name: _of_row(row) for name, row in _rows().items()}


def patterns(need: Requirements) -> list[str]:
    """What to ask EC2 for: the types that are named, else every family with GPUs, else the plain machines of the catalog."""
    if need.types:
        return sorted(set(need.types))
    return list(FAMILIES) if need.gpus else sorted(name for name, row in _rows().items() if not row["gpus"] and not row["gpu"])


def described(answer: Mapping[str, Any]) -> dict[str, Type]:
    """The types of one page of DescribeInstanceTypes, with what the catalog knows about them."""
    return {type.name: type for type in map(_of_ec2, answer.get("InstanceTypes", [])) if type is not None}


def misfit(type: Type, need: Requirements) -> Misfit | None:
    """Why this type is out, or None when it fits."""
    named = type.name in need.types
    if need.types and not named:
        return Misfit("type", "not one of the types that are named", near=False)
    if need.gpus == 0 and not named and type.name.endswith(".nano"):
        return Misfit("type", "too small to serve anything; it is for drills, and taken only when it is named", near=False)
    if need.gpus == 0:
        return None if type.gpus == 0 and type.part is None else Misfit("gpu", "it has a GPU, and none is needed", near=named)
    if not type.gpu:
        return Misfit("gpu", "it has no NVIDIA GPU", near=named)
    if need.gpu is not None and not same_gpu(need.gpu, type.gpu):
        return Misfit("gpu", f"it has {type.gpu}, not {need.gpu}", near=named)
    if type.part is not None:
        return Misfit("part", f"it has {type.part or 'a part'} of a GPU; a part is never counted as one")
    if type.gpus != need.gpus:
        return Misfit("gpus", f"it has {type.gpus} GPUs; {need.gpus} needed", near=named)
    memory = _memory(type, need)
    if memory is None and type.arch != "amd64" and not named:
        # The default image and most wheels are x86-64.
        return Misfit("arch", f"it is {type.arch}; name the type to allow that")
    return memory


def _memory(type: Type, need: Requirements) -> Misfit | None:
    if need.vram_mib == 0:
        return None
    if type.vram_mib is None:
        said = f"EC2 says {type.ec2_mib} MiB per GPU, but " if type.ec2_mib else ""
        return Misfit("vram", f"{said}what its driver shows is not known; {need.vram_mib} MiB needed")
    if type.vram_mib * 100 >= need.vram_mib * (100 - TOLERANCE_PERCENT):
        return None
    return Misfit("vram", f"{type.vram_mib} MiB per GPU as the driver shows it; {need.vram_mib} MiB needed")


def same_gpu(wanted: str, offered: str) -> bool:
    """ "L4", "nvidia l4" and "NVIDIA L4" are one; "L4" is not "L40S"; "A100" is both of its sizes, "A100 80GB" one."""
    have = _words(offered)
    # Whole words from the front, so that a shorter name means the family and never half a word.
    return "".join(_words(wanted)) in {"".join(have[:n]) for n in range(1, len(have) + 1)}


def _words(name: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in ("nvidia", "tesla")]


@cache
def _rows() -> dict[str, Mapping[str, Any]]:
    return {row["type"]: row for row in catalog()["types"]}


def _of_row(row: Mapping[str, Any]) -> Type:
    return Type(
        name=row["type"],
        gpu=row["gpu"],
        gpus=row["gpus"],
        vcpus=row["vcpus"],
        arch=row["arch"],
        vram_mib=row["smiMib"],
        ec2_mib=row["ec2Mib"],
        verified=row["smiVerified"],
        part=Fraction(row["gpuFraction"]) if row.get("gpuFraction") else None,
    )


def _of_ec2(said: Mapping[str, Any]) -> Type | None:
    """One entry as EC2 describes it; None where it is not even a name with vCPUs."""
    name, vcpus = said.get("InstanceType"), said.get("VCpuInfo", {}).get("DefaultVCpus")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}", name) or not isinstance(vcpus, int):
        return None
    gpus = [gpu for gpu in said.get("GpuInfo", {}).get("Gpus", []) if str(gpu.get("Manufacturer", "")).upper() == "NVIDIA"]
    machine = "x86_64" in said.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    seen = Type(
        name=name,
        gpu="",
        gpus=0,
        vcpus=vcpus,
        arch="amd64" if machine else "arm64",
        ways=tuple(str(way) for way in said.get("SupportedUsageClasses", ("on-demand", "spot"))),
    )
    if gpus:
        seen = _with_gpus(seen, gpus[0])
    row = row_of(name)
    if row is None or bool(row["gpu"]) != bool(seen.gpu):
        return seen
    # EC2 says what is sold today; the driver's figure and the GPU's usual name are the catalog's.
    return replace(seen, gpu=row["gpu"], vram_mib=row["smiMib"], verified=row["smiVerified"])


def _with_gpus(seen: Type, gpu: Mapping[str, Any]) -> Type:
    name = clean(str(gpu.get("Name", "GPU")), limit=40)
    size, count = gpu.get("MemoryInfo", {}).get("SizeInMiB"), gpu.get("Count")
    mib = size if isinstance(size, int) and size > 0 else None
    count = count if isinstance(count, int) and count >= 0 else 0
    whole = WHOLE_MIB.get(name.upper())
    part = None
    if mib is not None and whole is not None and mib * 100 < whole * 95:
        part = Fraction(mib, whole).limit_denominator(16)
    elif count == 0:
        part = Fraction(0)  # less than one, by EC2's own count; how much, nobody says
    return replace(seen, gpu=f"NVIDIA {name}", gpus=0 if part is not None else count, ec2_mib=mib, part=part)
