"""moto's EC2 objects, with what a machine in time needs: states, an address only while it runs, an end that cleans up.

`Machine` replaces moto's Instance class, so everything moto knows about instances (filters, attributes, the XML) keeps
working on it. Addresses come from the two ranges set aside for documentation (RFC 5737), so a client that forgets to
ask the rehearsal for the way can never dial a stranger. One image exists per region: the deep learning image that
gpulease asks the parameter store for, marked as simulated in its name.

Imported only after `engine.load`. It knows objects, not time: `lifecycle.py` says when.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from typing import Any

import moto.ec2.models.elastic_ip_addresses
import moto.ec2.models.elastic_network_interfaces
import moto.ec2.models.instances
from moto.ec2.models.amis import Ami
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.instances import Instance, InstanceState, StateReason
from moto.ec2.models.spot_requests import SpotInstanceRequest
from moto.ec2.utils import filter_dict_attribute_mapping

from provisioner.rehearsal import engine
from provisioner.rehearsal.wire import Refusal, stamp

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
IMAGE_OWNER = "898082745236"
IMAGE_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) SIMULATED"
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
IMAGE_GIB = 45
_REACH = {"initializing": "initializing", "ok": "passed", "impaired": "failed"}


class Addresses:
    """203.0.113.0/24 and 198.51.100.0/24, least recently used first."""

    def __init__(self) -> None:
        self._free = deque(f"{net}.{host}" for net in ("203.0.113", "198.51.100") for host in range(1, 255))

    def take(self) -> str:
        if not self._free:
            raise Refusal("InsufficientFreeAddressesInSubnet", "all 508 addresses of the rehearsal are in use")
        return self._free.popleft()

    def give_back(self, address: str) -> None:
        self._free.append(address)


ADDRESSES = Addresses()


class Machine(Instance):
    """An instance that is pending when it is born."""

    platform_details = "Linux/UNIX"
    usage_operation = "RunInstances"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reach = "initializing"
        self.epoch = 0  # counts what was asked of it; a timer set before the last ask is void
        self.spot_request: SpotRequest | None = None
        self.spot_instance_request_id: str | None = None
        self.kernel_id = None
        self.become("pending")
        self.changed = (0.0, self._state)  # when its state last changed, monotonic, and what it was before
        self.explain("", "", "")
        for nic in self.nics.values():
            nic.stop()  # no address before it runs

    def become(self, name: str) -> None:
        self.changed = (time.monotonic(), self._state)
        self._state = InstanceState(name, STATES[name])

    def explain(self, code: str, message: str, transition: str) -> None:
        self.state_reason = StateReason(f"{code}: {message}", code) if code else None  # type: ignore[assignment]
        self._reason = transition

    @property
    def instance_id(self) -> str:
        return str(self.id)  # moto looks for "<class name>Id", and this class has another name

    @property
    def gone(self) -> bool:
        return self.state == "terminated"

    def get_address(self) -> None:
        for nic in self.nics.values():
            if str(nic.public_ip_auto_assign).lower() == "true" and not nic.public_ip:
                nic.public_ip = ADDRESSES.take()

    def lose_address(self) -> None:
        for nic in self.nics.values():
            if str(nic.public_ip_auto_assign).lower() == "true" and nic.public_ip:
                ADDRESSES.give_back(nic.public_ip)
                nic.public_ip = None

    def end(self) -> None:
        """Terminated: volumes and interfaces that were to go with it are gone, the others are free."""
        reason, transition = self.state_reason, self._reason
        self.lose_address()
        for address in list(self.ec2_backend.addresses):
            if address.instance is self or (address.eni is not None and address.eni in self.nics.values()):
                address.instance = address.eni = address.association_id = None
        kept = [nic for nic in self.nics.values() if not nic.delete_on_termination]
        super().terminate()
        for nic in kept:
            self.detach_eni(nic)
        self.state_reason, self._reason = reason, transition
        self.security_groups = []

    def metadata(self) -> dict[str, str]:
        """What the machine can ask about itself, beside its id and type."""
        return {
            "account": engine.ACCOUNT,
            "region": str(self.region_name),
            "zone": str(self.placement.zone),
            "image": str(self.image_id),
            "lifecycle": "spot" if self.spot_request else "on-demand",
            "private_ip": self.private_ip or "",
            "tokens": str(self.metadata_options.http_tokens),
            "endpoint": str(self.metadata_options.http_endpoint),
        }

    @property
    def state_transition_reason(self) -> str | None:
        return self._reason

    @property
    def instance_status(self) -> dict[str, Any]:
        if self.state != "running":
            return {"Status": "not-applicable"}
        return {"Details": [{"Name": "reachability", "Status": _REACH[self.reach]}], "Status": self.reach}

    @property
    def network_interfaces(self) -> list[Any]:
        return [] if self.gone else list(self.nics.values())

    @property
    def private_ip(self) -> str | None:
        return None if self.gone or not self.nics else self.nics[0].private_ip_address

    @property
    def private_ip_address(self) -> str | None:
        return self.private_ip

    @property
    def private_dns_name(self) -> str:
        return super().private_dns_name if self.private_ip else ""

    @property
    def public_ip(self) -> str | None:
        return None if self.gone or not self.nics else self.nics[0].public_ip

    @property
    def public_ip_address(self) -> str | None:
        return self.public_ip


class SpotRequest(SpotInstanceRequest):
    """The request behind a spot machine that RunInstances made."""

    def __init__(self, machine: Machine, persistent: bool, price: str, tags: dict[str, str], valid_until: Any = None) -> None:
        self._machine = machine
        self._made = self._updated = stamp(time.time()) or ""
        self.end_as = ("instance-terminated-by-user", "Your Spot instance was terminated by user request.")
        digest = hashlib.sha256(machine.id.encode()).hexdigest()
        super().__init__(
            machine.ec2_backend,
            f"sir-{digest[:8]}",
            price,
            machine.image_id,
            "persistent" if persistent else "one-time",
            valid_from=None,
            valid_until=valid_until,
            launch_group=None,
            availability_zone_group=None,
            key_name=machine.key_name or "",
            security_groups=[group.id for group in machine.security_groups],
            user_data=None,
            instance_type=machine.instance_type,
            placement=machine.placement.zone,
            kernel_id=None,
            ramdisk_id=None,
            monitoring_enabled=False,
            subnet_id=machine.subnet_id or "",
            tags={"spot-instances-request": tags},
            spot_fleet_id=None,
            instance_interruption_behaviour="terminate",
        )

    def launch_instance(self) -> Instance:
        return self._machine

    @property
    def create_time(self) -> str:
        return self._made

    @property
    def launched_availability_zone(self) -> str:
        return str(self._machine.placement.zone)

    @property
    def status(self) -> dict[str, Any]:
        return {"Code": self._status_code, "Message": self.status_message, "UpdateTime": self._updated}

    def mark(self, code: str, message: str) -> None:
        self._status_code, self.status_message, self._updated = code, message, stamp(time.time()) or ""

    def close(self) -> None:
        """Its machine ends."""
        if self.type == "persistent" and self.state != "cancelled":
            # AWS would launch another; the rehearsal only shows that it is still open.
            self.state = "open"
            self.mark("pending-fulfillment", "Your Spot request is pending fulfillment.")
            return
        self.state = "cancelled" if self.state == "cancelled" else "closed"
        self.mark(*self.end_as)

    def cancel(self) -> None:
        if self.state in ("closed", "cancelled"):
            return
        runs = self.state == "active"
        self.state = "cancelled"
        if runs:
            self.mark("request-canceled-and-instance-running", "Your Spot request is canceled, but your instance is still running.")
        else:
            self.mark("canceled-before-fulfillment", "Your Spot request is canceled before it was fulfilled.")


class Image(Ami):
    ena_support = True
    imds_support = "v2.0"
    platform_details = "Linux/UNIX"
    usage_operation = "RunInstances"

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        ebs = {"SnapshotId": self.ebs_snapshot.id, "VolumeSize": IMAGE_GIB, "DeleteOnTermination": True, "VolumeType": "gp3"}
        return [{"DeviceName": self.root_device_name, "Ebs": {**ebs, "Iops": 3000, "Throughput": 125, "Encrypted": False}}]


def install() -> None:
    """Make moto build our machines, find them by what EC2 finds them by, and draw harmless addresses."""
    moto.ec2.models.instances.Instance = Machine  # type: ignore[misc]
    # Never seen: Machine takes it away at once, and gives a better one when it runs.
    vars(moto.ec2.models.elastic_network_interfaces)["random_public_ip"] = lambda: "0.0.0.0"
    vars(moto.ec2.models.elastic_ip_addresses)["random_ip"] = ADDRESSES.take
    # Asked without AllRegions, EC2 lists the regions that are enabled; moto lists all.
    regions = RegionsAndZonesBackend.regions
    regions[:] = [region for region in regions if region.opt_in_status == "opt-in-not-required"]
    filter_dict_attribute_mapping.update(
        {
            "client-token": "client_token",
            "instance-lifecycle": "lifecycle",
            "instance-state-code": "state_code",
            "root-device-name": "root_device_name",
            "root-device-type": "root_device_type",
            "spot-instance-request-id": "spot_instance_request_id",
            "metadata-options.http-tokens": "metadata_options.http_tokens",
        }
    )


def image_id(region: str) -> str:
    return "ami-" + hashlib.sha256(f"gpulease rehearsal {region}".encode()).hexdigest()[:17]


def region_backend(region: str) -> Any:
    """moto's backend of the region, with the image in it and a key for encrypted volumes."""
    backend = engine.backend(region)
    if image_id(region) not in backend.amis:
        # Otherwise the first encrypted volume imports all of moto's KMS to make one.
        backend.default_kms_key_id = f"arn:aws:kms:{region}:{engine.ACCOUNT}:key/00000000-0000-4000-8000-000000000000"
        image = Image(
            backend,
            image_id(region),
            name=IMAGE_NAME,
            description="A simulated image: the machine is a process on this computer",
            owner_id=IMAGE_OWNER,
            owner_alias="amazon",
            public=True,
            virtualization_type="hvm",
            architecture="x86_64",
            image_location=f"amazon/{IMAGE_NAME}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name="/dev/sda1",
            region_name=f"{region}a",
            boot_mode="uefi-preferred",
        )
        image.ebs_snapshot.volume.size = IMAGE_GIB
        backend.amis[image.id] = image
    return backend


def machines(backend: Any) -> list[Machine]:
    return [machine for reservation in list(backend.reservations.values()) for machine in reservation.instances]


def machine(backend: Any, instance_id: str) -> Machine | None:
    return next((one for one in machines(backend) if one.id == instance_id), None)


def forget(backend: Any, gone: Machine) -> None:
    """No longer listed, as an hour after its end."""
    for reservation in list(backend.reservations.values()):
        if gone in reservation.instances:
            reservation.instances.remove(gone)
            if not reservation.instances:
                del backend.reservations[reservation.id]
    backend.tags.pop(gone.id, None)
