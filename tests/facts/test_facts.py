"""Every captured answer, read by its parser; and what a machine's facts mean for a profile's needs.

A case is one JSON file: {"command", "source", "output"} and "fact", or "error" (words of the complaint), or "hostile"
(words that remain once the control codes are gone).
`source` says whether the output was captured on a machine or written after the tool's documented format.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from provisioner.errors import RunError
from provisioner.model import Requirements
from provisioner.remote import facts
from provisioner.remote.facts import FACTS, FactUnreadable, exposed, loopback, older, same_gpu, verify
from tests.playbooks.localhost import LocalHost

CASES = sorted(Path(__file__).parent.glob("*/*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_captured_answer_is_read_as_written_down(path: Path) -> None:
    case = json.loads(path.read_text())
    source = FACTS[path.parent.name]
    assert case["command"] == source.command, "the command changed: this answer may no longer be what it prints"
    assert case["source"] in ("captured", "written after documented format")
    if "error" in case:
        with pytest.raises(FactUnreadable) as caught:
            source.parse(case["output"])
        said = f"{caught.value.what} {caught.value.why}"
        assert case["error"] in said
        assert "\x1b" not in said and "\n" not in said
    elif "hostile" in case:
        read = json.dumps(source.parse(case["output"]))
        assert case["hostile"] in read
        assert not any(code in read for code in ("\\u001b", "\\u0007", "\\u202e", "\\u009b")), "a control code got through"
    else:
        assert source.parse(case["output"]) == case["fact"]


def test_every_fact_has_a_case_that_reads_and_one_that_does_not_for_most() -> None:
    folders = {path.parent.name for path in CASES}
    assert folders == set(FACTS)
    assert len(CASES) >= 30
    failing = {path.parent.name for path in CASES if "error" in json.loads(path.read_text())}
    assert failing == set(FACTS)


def gpu(name: str = "NVIDIA L4", mib: int = 23034, driver: str = "595.91.07") -> dict[str, object]:
    return {"name": name, "uuid": "GPU-1", "driver": driver, "memory_total_mib": mib, "compute_cap": "8.9", "ecc": True}


def machine(*gpus: dict[str, object], processes: tuple[object, ...] = (), free: int = 200, mig: tuple[str, ...] = ()) -> dict[str, object]:
    disk = {
        "home": {"mount": "/", "size_gib": 97, "free_gib": 50},
        "cache": {"mount": "/opt/dlami/nvme", "size_gib": 233, "free_gib": free},
    }
    return {"gpus": list(gpus), "gpu_processes": list(processes), "disk": disk, "mig": list(mig)}


def test_a_machine_that_fits_has_no_differences() -> None:
    need = Requirements(gpu="L4", gpus=1, vram_mib=23034, driver_min="570", disk_gib=60)
    assert verify(machine(gpu()), need) == []


def test_too_little_memory_quotes_both_numbers() -> None:
    (said,) = verify(machine(gpu()), Requirements(gpu="L4", vram_mib=40960))
    assert said == "this machine has 1 \N{MULTIPLICATION SIGN} NVIDIA L4 with 23034 MiB each; the profile needs 40960 MiB"


@pytest.mark.parametrize(("need", "ok"), [(15360, True), (15673, True), (15674, False), (16384, False)])
def test_memory_may_be_two_percent_short_and_no_more(need: int, ok: bool) -> None:
    assert (verify(machine(gpu("Tesla T4", 15360)), Requirements(vram_mib=need)) == []) is ok


def test_an_old_driver_is_named_with_the_one_needed() -> None:
    (said,) = verify(machine(gpu(driver="570.86.15")), Requirements(driver_min="580"))
    assert said == "this machine has NVIDIA driver 570.86.15; the profile needs 580 or newer"


def test_one_gpu_of_several_is_too_small() -> None:
    (said,) = verify(machine(gpu(), gpu("NVIDIA L40S", 46068)), Requirements(gpus=2, vram_mib=40000))
    assert "1 \N{MULTIPLICATION SIGN} NVIDIA L4 with 23034 MiB each and 1 \N{MULTIPLICATION SIGN} NVIDIA L40S with 46068 MiB each" in said


def test_too_few_gpus_and_the_wrong_kind_are_said_at_once() -> None:
    wrong = verify(machine(gpu("NVIDIA L40S", 46068)), Requirements(gpu="L4", gpus=4))
    assert len(wrong) == 2 and "needs 4 GPUs" in wrong[0] and "needs L4" in wrong[1]


def test_somebody_elses_process_on_the_gpu_is_named() -> None:
    (said,) = verify(machine(gpu(), processes=({"pid": 42, "name": "python3", "used_mib": None},)), Requirements())
    assert "python3 (pid 42, memory not known)" in said


def test_a_sliced_gpu_is_not_a_whole_one() -> None:
    (said,) = verify(machine(gpu("NVIDIA A100-SXM4-80GB", 81920), mig=("1g.10gb", "1g.10gb")), Requirements(gpu="A100"))
    assert said == "the GPU is cut into 2 MIG slices (1g.10gb); the profile needs whole GPUs"


def test_a_small_disk_names_the_folder_that_will_fill() -> None:
    (said,) = verify(machine(gpu(), free=59), Requirements(disk_gib=60))
    assert said == "this machine has 59 GiB free at /opt/dlami/nvme; the profile needs 60 GiB"


def test_no_gpu_is_looked_for_when_none_is_needed() -> None:
    assert verify({"disk": machine()["disk"]}, Requirements(gpus=0)) == []


@pytest.mark.parametrize(
    ("wanted", "name", "same"),
    [
        ("L4", "NVIDIA L4", True),
        ("l4", "NVIDIA L4", True),
        ("NVIDIA L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("L40S", "NVIDIA L4", False),
        ("L40", "NVIDIA L40S", False),
        ("T4", "Tesla T4", True),
        ("T4", "NVIDIA T4G", False),
        ("A10", "NVIDIA A10G", False),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("H100 PCIe", "NVIDIA H100 PCIe", True),
        ("A100 80GB", "NVIDIA A100-SXM4-80GB", True),
        ("A100 40GB", "NVIDIA A100-SXM4-80GB", False),
        ("RTX 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", False),
        ("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", True),
        ("NVIDIA", "NVIDIA L4", False),
        ("", "NVIDIA L4", False),
    ],
)
def test_a_gpu_name_matches_by_whole_words(wanted: str, name: str, same: bool) -> None:
    assert same_gpu(wanted, name) is same


@pytest.mark.parametrize(
    ("have", "need", "is_older"),
    [
        ("570.86.15", "570", False),
        ("570.86.15", "570.86", False),
        ("570.86.15", "570.133", True),
        ("99.1", "570", True),
        ("595", "580.126", False),
    ],
)
def test_driver_versions_are_compared_as_numbers(have: str, need: str, is_older: bool) -> None:
    assert older(have, need) is is_older


def test_a_driver_version_that_is_none_is_an_error() -> None:
    with pytest.raises(FactUnreadable, match="not a driver version"):
        older("595.91.07", "latest")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"])
def test_a_loopback_address_is_not_exposed(address: str) -> None:
    assert loopback(address)
    assert exposed([{"address": address, "port": 8000}]) == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*", "10.0.0.5", "fe80::1", "::ffff:10.0.0.5"])
def test_everything_else_is_exposed_but_sshd(address: str) -> None:
    rows = [{"address": address, "port": 22}, {"address": address, "port": 8000}]
    assert exposed(rows) == [rows[1]]
    assert exposed(rows, ssh_ports=()) == rows


def test_facts_are_read_off_a_machine_by_its_own_commands(local_host: LocalHost) -> None:
    local_host.tool("ss", "printf 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\\n'")
    fact = facts.read(local_host, "listeners")
    assert fact.value == [{"address": "0.0.0.0", "port": 22, "process": None, "pid": None}]
    assert fact.raw.startswith("# ss\n") and fact.command == FACTS["listeners"].command


def smi(host: LocalHost, memory: int = 23034, processes: str = "", status: int = 0) -> None:
    host.tool(
        "nvidia-smi",
        f"""case "$*" in
*query-gpu*) echo "NVIDIA L4, GPU-1a2b, 595.91.07, {memory}, 8.9, Enabled" ;;
*query-compute-apps*) printf '{processes}' ;;
-L) echo "GPU 0: NVIDIA L4 (UUID: GPU-1a2b)" ;;
esac
exit {status}""",
    )


def test_check_gives_the_facts_of_a_machine_that_fits(local_host: LocalHost) -> None:
    smi(local_host)
    found = {fact.name: fact.value for fact in facts.check(local_host, Requirements(gpu="L4", vram_mib=22000, disk_gib=0))}
    assert found["gpus"][0]["memory_total_mib"] == 23034
    assert found["systemd"] in (True, False)


def test_check_raises_with_every_difference_and_what_to_do(local_host: LocalHost) -> None:
    smi(local_host, memory=15360, processes="42, python3, 512\\n")
    with pytest.raises(RunError) as caught:
        facts.check(local_host, Requirements(gpu="T4", vram_mib=40960, disk_gib=0))
    assert "needs T4" in caught.value.what and "needs 40960 MiB" in caught.value.what and "pid 42" in caught.value.what
    assert caught.value.next and local_host.name in caught.value.why


def test_a_tool_that_answers_and_then_fails_is_not_believed(local_host: LocalHost) -> None:
    smi(local_host, status=9)
    with pytest.raises(FactUnreadable, match="ended with 9"):
        facts.read(local_host, "gpus")


def test_a_machine_without_gpu_is_fine_when_none_is_needed(local_host: LocalHost) -> None:
    local_host.tool("nvidia-smi", "echo 'must not be asked' >&2; exit 1")
    assert {fact.name for fact in facts.check(local_host, Requirements(gpus=0, disk_gib=0))} >= {"disk", "python"}


def test_a_machine_without_ss_is_read_from_the_kernels_table(local_host: LocalHost) -> None:
    import socket

    local_host.hide("ss")
    with socket.create_server(("127.0.0.1", 0)) as server:
        fact = facts.read(local_host, "listeners")
        port = server.getsockname()[1]
    assert fact.raw.startswith("# proc\n")
    assert {"address": "127.0.0.1", "port": port, "process": None, "pid": None} in fact.value


LSBLK = r"""Amazon\x20Elastic\x20Block\x20Store /
Amazon\x20Elastic\x20Block\x20Store /boot
Amazon\x20EC2\x20NVMe\x20Instance\x20Storage
Amazon\x20EC2\x20NVMe\x20Instance\x20Storage {mount}
"""


@pytest.mark.parametrize(("room", "chosen"), [("900000000", True), ("1000", False)])
def test_a_local_disk_that_is_mounted_elsewhere_is_found_and_used_where_it_has_the_room(tmp_path: Path, room: str, chosen: bool) -> None:
    mount, tools = tmp_path / "scratch", tmp_path / "bin"
    mount.mkdir()
    tools.mkdir()
    (tmp_path / "lsblk.txt").write_text(LSBLK.format(mount=mount))
    head = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    for name, script in (
        ("lsblk", f"cat {tmp_path}/lsblk.txt"),
        ("df", f'case "$2" in {mount}) f={room} ;; *) f=50000000 ;; esac; echo "{head}"; echo "/dev/x 999999999 1 $f 1% $2"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    env = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}
    said = subprocess.run(["sh", "-c", FACTS["disk"].command], env=env, capture_output=True, text=True, check=True).stdout
    assert FACTS["disk"].parse(said)["cache"]["mount"] == str(mount if chosen else tmp_path)
