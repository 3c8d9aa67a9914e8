"""The command `offers`, as `cli` has the others: options in, one function called, its answer handed to the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from provisioner.options import AwsProfile, Endpoint, Json, Rehearse
from provisioner.terminal import NOTHING_YET, ending, leave


def offers(
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="Take the needs of this profile, and its order.")] = None,
    gpu: Annotated[str | None, typer.Option(help="The GPU's family, such as L4.", metavar="GPU")] = None,
    gpus: Annotated[int | None, typer.Option(help="How many GPUs; 0 for none. One when left out.", min=0, max=16)] = None,
    vram: Annotated[str | None, typer.Option(help="The least memory per GPU in GiB, as nvidia-smi shows it.", metavar="GIB")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be given several times.", metavar="TYPE")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Also the spot market.")] = False,
    region: Annotated[list[str] | None, typer.Option(help="Only this region; may be given several times.", metavar="REGION")] = None,
    aws_profile: AwsProfile = None,
    rehearse: Rehearse = False,
    endpoint: Endpoint = None,
    as_json: Json = False,
) -> None:
    """What could be rented, cheapest first, and why the rest could not. Creates nothing.

    \b
        gpulease offers --gpu L4 --vram 20
        gpulease offers --vram 40 --spot --region us-east-1 --region us-west-2
        gpulease offers qwen3-8b-l4
    """
    from provisioner.offering import Wish, look

    with ending(as_json, NOTHING_YET):
        wish = Wish(profile, gpu, gpus, vram, tuple(types or ()), spot, tuple(region or ()), aws_profile, rehearse, endpoint)
        code, record, text = look(wish)
        leave(code, record if as_json else text)
