"""apache-libcloud's EC2 driver against a loopback endpoint; run in an environment that has it. Prints one JSON document.

python libcloud_client.py PORT see             every machine, disk, group and interface that it finds
python libcloud_client.py PORT rent LEASE      rents a machine with that tag, waits until it runs, and prints it
python libcloud_client.py PORT return ID       lets go of it
"""

import json
import sys

from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider


def shown(node):
    return {"id": node.id, "name": node.name, "state": str(node.state), "addresses": node.public_ips, "tags": node.extra["tags"]}


def see(driver):
    return {
        "machines": [shown(node) for node in driver.list_nodes()],
        "disks": [
            {"id": disk.id, "gib": disk.size, "on": disk.extra["instance_id"], "tags": disk.extra["tags"]} for disk in driver.list_volumes()
        ],
        "groups": {group.id: group.name for group in driver.ex_get_security_groups()},
        "interfaces": [interface.id for interface in driver.ex_list_network_interfaces()],
    }


def rent(driver, lease):
    (image,) = driver.list_images(ex_owner="898082745236")
    (size,) = [size for size in driver.list_sizes() if size.id == "g6.xlarge"]
    zone = next(place for place in driver.list_locations() if place.name == "us-east-1b")
    node = driver.create_node(name="made by libcloud", image=image, size=size, location=zone, ex_metadata={"gpulease:lease": lease})
    ((node, _),) = driver.wait_until_running([node], wait_period=0.2, timeout=60)
    return {**shown(driver.list_nodes(ex_node_ids=[node.id])[0]), "zone": node.extra["availability"]}


def main(port, what, *more):
    driver = get_driver(Provider.EC2)(
        "dummy", "dummy", region="us-east-1", secure=False, host="127.0.0.1", port=int(port), signature_version="4"
    )
    if what == "return":
        (node,) = driver.list_nodes(ex_node_ids=list(more))
        print(json.dumps({"asked": driver.destroy_node(node)}))
    else:
        print(json.dumps(rent(driver, *more) if what == "rent" else see(driver)))


main(*sys.argv[1:])
