"""Which image a machine boots: looked up once, then an id.

AWS publishes the Deep Learning Base image (driver, CUDA libraries, container toolkit; login user `ubuntu`) under an
SSM parameter that moves with every release. It is resolved once per provider, and the id is what is launched and
recorded, so that a retry an hour later is the same machine. Whoever may write a parameter or share an image could
put theirs under a good name: the owner is checked against AWS's own accounts.

An image that the profile names is the user's choice and is taken as it is; only its architecture must fit.
This file must not create anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provisioner.errors import ProviderError
from provisioner.model import LaunchSpec
from provisioner.providers.aws_client import Account
from provisioner.providers.aws_errors import NotAsked
from provisioner.providers.aws_launch import Image
from provisioner.providers.aws_types import row_of

PARAMETERS = {
    "x86_64": "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
    "arm64": "/aws/service/deeplearning/ami/arm64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
}
NAMES = {
    "x86_64": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
    "arm64": "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) *",
}
OWNER = "898082745236"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


def image_for(account: Account, spec: LaunchSpec, known: dict[str, Image]) -> Image:
    """The image to launch. `known` keeps what was resolved, under its id or its architecture."""
    row = row_of(spec.offer.type)
    wanted = ARCHITECTURES.get(str(row["arch"])) if row is not None else None
    image = image_named(account, spec.image, wanted or "x86_64", known)
    if wanted and image.architecture and image.architecture != wanted:
        raise NotAsked(
            f"image {image.id} is for {image.architecture} machines and {spec.offer.type} is {wanted}",
            next="name an image for that architecture in the profile, or take another type",
        )
    return image


def image_named(account: Account, name: str | None, architecture: str, known: dict[str, Image]) -> Image:
    """The image of that id, or AWS's own for an architecture: looked up once, and the same from then on."""
    key = name or architecture
    if key not in known:
        known[key] = _image(_describe(account, name) if name else _default(account, architecture))
    return known[key]


def _default(account: Account, architecture: str) -> Mapping[str, Any]:
    try:
        answer = account.ask("GetParameter", service="ssm", Name=PARAMETERS[architecture])
        described = _describe(account, str(answer.data["Parameter"]["Value"]))
    except ProviderError as e:
        # Not every role may read SSM, and not every region has the parameter: the same image has a name too.
        described = _by_name(account, architecture, e)
    # The rehearsal's image belongs to the rehearsal's account.
    if account.endpoint is None and described.get("OwnerId") != OWNER and described.get("ImageOwnerAlias") != "amazon":
        raise NotAsked(
            f"image {described.get('ImageId')} belongs to account {described.get('OwnerId')}; the Deep Learning image belongs to {OWNER}",
            why="an image of that name from anybody else may be anything",
        )
    return described


def _by_name(account: Account, architecture: str, missing: ProviderError) -> Mapping[str, Any]:
    filters = [{"Name": "name", "Values": [NAMES[architecture]]}, {"Name": "state", "Values": ["available"]}]
    images = account.ask("DescribeImages", Owners=[OWNER], Filters=filters).data.get("Images", [])
    if not images:
        raise NotAsked(
            f"no Deep Learning Base image is shown in {account.region}",
            why=f"the SSM parameter: {missing.what}; by name: none of {OWNER}",
            next="name an image in the profile",
        )
    newest: Mapping[str, Any] = max(images, key=lambda image: str(image.get("CreationDate", "")))
    return newest


def _describe(account: Account, id: str) -> Mapping[str, Any]:
    images = account.ask("DescribeImages", ImageIds=[id]).data.get("Images", [])
    if len(images) != 1:
        raise NotAsked(f"image {id} is not shown in {account.region}")
    described: Mapping[str, Any] = images[0]
    if described.get("State", "available") != "available":
        raise NotAsked(f"image {id} is {described.get('State')}, not available")
    return described


def _image(described: Mapping[str, Any]) -> Image:
    root = str(described.get("RootDeviceName") or "")
    sizes = [
        int(mapping["Ebs"]["VolumeSize"])
        for mapping in described.get("BlockDeviceMappings", [])
        if mapping.get("DeviceName") == root and "VolumeSize" in mapping.get("Ebs", {})
    ]
    if not root or not sizes:
        raise NotAsked(f"image {described.get('ImageId')} does not say which disk it boots from and how large it is")
    return Image(
        id=str(described["ImageId"]),
        root_device=root,
        root_gib=sizes[0],
        name=str(described.get("Name", "")),
        architecture=str(described.get("Architecture", "")),
        created=str(described.get("CreationDate", "")),
        owner=str(described.get("ImageOwnerAlias") or described.get("OwnerId") or ""),
    )
