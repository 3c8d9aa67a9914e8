"""The sections of a profile as people write them: one class each, one field per key.

A key's description is at once what the documentation says of it, what the schema tells an editor and what a complaint
says was expected. What one value may be is in `profile_fields.py`; what may not stand together, in `profile.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from provisioner import profile_fields as f


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def whole(default: int, low: int, high: int, what: str) -> Any:
    """A whole number with bounds; its description is what a complaint says was expected."""
    return Field(default, ge=low, le=high, description=f"{what}: a whole number from {low} to {high}")


class Needs(Section):
    """The machine."""

    gpu: f.Gpu | None = Field(None, description="the GPU's family, like L4; any when left out")
    gpus: int = whole(1, 0, 16, "how many GPUs, 0 for none")
    vram_gib: f.Gib = Field(0, description="the least memory per GPU as nvidia-smi shows it, in GiB")
    driver: f.Driver | None = Field(None, description='the oldest NVIDIA driver that will do, like "570"')
    disk_gib: int = whole(60, 8, 16384, "GiB of free disk, beside the image")
    # One line of the journal holds a whole look, a row for each kind and region, and has 16 KiB: 8 need 12.7.
    regions: Annotated[tuple[f.Region, ...], f.Names] = Field(
        (), strict=False, max_length=8, description="a list of at most 8 regions, like [us-east-1]"
    )
    types: Annotated[tuple[f.InstanceType, ...], f.Names] = Field(
        (), strict=False, max_length=40, description="a list of instance types, like [g6.xlarge]; any that fits when left out"
    )
    purchase: Annotated[tuple[f.Purchase, ...], f.Names] = Field(
        ("on-demand",),
        strict=False,
        min_length=1,
        description="a list of ways to buy, the preferred one first: on-demand, spot (costs less and may be taken away) or both",
    )
    spot_max_usd_per_hour: f.Dollars | None = Field(
        None, description='the most to pay per hour on the spot market, in US dollars, like "0.40"; the on-demand price when left out'
    )


class Launch(Section):
    """How the machine is asked for, where the account has something of its own for it. The defaults need nothing."""

    image: f.ImageId | None = Field(None, description="the id of an image to boot; the newest Deep Learning Base image when left out")
    security_group: f.GroupId | None = Field(None, description="the id of a security group you have; one is made per run when left out")
    subnet: f.SubnetId | None = Field(None, description="the id of a subnet you have; the default one of the zone when left out")
    reach: f.Reach = Field("address", description="how SSH gets in: address, endpoint (Instance Connect) or ssm (Session Manager)")
    fleet: bool = Field(
        False, description="true: asked for through an EC2 Fleet, which ends itself and its machine 4 min after the deadline"
    )


class Model(Section):
    """What is served."""

    id: f.ModelId = Field(description="owner/name as the hub writes it, or an absolute path on the machine")
    revision: f.Revision | None = Field(None, description="the commit, 40 hex digits; needed unless id is a path")
    name: f.Served | None = Field(None, description="the name the server answers to; the id when left out")

    @property
    def served_name(self) -> str:
        """The id; of a path its last part."""
        return self.name or (self.id.rsplit("/", 1)[-1] if self.id.startswith("/") else self.id)


class Runtime(Section):
    """How it is served."""

    name: f.RuntimeName = Field(description="the inference server")
    version: f.Version = Field(description='its version, like "0.33.0"')
    flags: dict[f.FlagName, f.FlagValue] = Field({}, description="a mapping of flags without dashes, like max-model-len: 8192")
    env: dict[f.EnvName, f.EnvValue] = Field({}, description="a mapping of environment variables, none of them secret")
    command: f.Command | None = Field(None, description="the executable's absolute path, where it is already on the machine")


class Eval(Section):
    """What it is asked."""

    set: f.EvalSet = Field(description="a shipped eval set's name, or the path of a .jsonl file")
    max_tokens: int = whole(128, 1, 32768, "the longest answer in tokens")
    temperature: f.Temperature = Field("0", description="a number from 0 to 2")
    seed: int = whole(0, 0, 2**31 - 1, "the seed")


class Load(Section):
    """How it is asked."""

    vantages: Annotated[tuple[f.Vantage, ...], f.Names] = Field(
        ("host", "tunnel"), strict=False, min_length=1, description="a list of where to measure from: host, tunnel or both"
    )
    concurrency: int = whole(4, 1, 1024, "how many requests at a time")
    warmup: int = whole(2, 0, 1000, "how many requests before measuring")
    timeout_s: int = whole(60, 1, 3600, "seconds until a request counts as failed")
    rate_per_s: f.Rate | None = Field(None, description="requests per second (open loop); nothing for a closed loop")


class Limits(Section):
    """What it may cost."""

    usd: f.Dollars = Field(description='US dollars for the whole run, like "1.00"')
    minutes: int = Field(ge=5, le=1440, description="minutes from launch until everything is gone: a whole number from 5 to 1440")


class Written(Section):
    """A profile as it is written. The order here is the order in the schema."""

    profile: Literal[1] = Field(description="1, the format this gpulease reads")
    name: f.Name = Field(description="the profile's name")
    about: f.About = Field("", description="one sentence")
    needs: Needs = Field(description="a mapping: the machine")
    launch: Launch = Field(default_factory=lambda: Launch.model_validate({}), description="a mapping: how it is asked for")
    model: Model = Field(description="a mapping: what is served")
    runtime: Runtime = Field(description="a mapping: how it is served")
    eval: Eval = Field(description="a mapping: what it is asked")
    load: Load = Field(default_factory=lambda: Load.model_validate({}), description="a mapping: how it is asked")
    budget: Limits = Field(description="a mapping: what it may cost")
    thresholds: dict[f.ThresholdName, f.Limit] = Field({}, description="a mapping: how good is good enough, like accuracy_percent: 80")
    on_interruption: Literal["stop", "continue"] = Field(
        "stop", description="stop, or continue (on the next offer, from the last finished case, within the same budget)"
    )
    waive: Annotated[tuple[f.Guard, ...], f.Names] = Field((), strict=False, description="a list of guards this run may do without")
