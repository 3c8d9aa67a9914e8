"""The commands of a machine: nvidia-smi, ss, df and the ones that must not touch this computer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.rehearsal.host_gpu import NvidiaSmi
from provisioner.rehearsal.host_shims import df
from provisioner.rehearsal.host_spec import BadSpec, Faults, Gpu, parse_spec

from .conftest import L4, Box

Start = Callable[..., Box]
BOARD = Gpu("NVIDIA L4", 23034, "580.126.09", "GPU-1", "8.9", True)
QUERY = ["--query-gpu=name,uuid,driver_version,memory.total,compute_cap,ecc.mode.current"]


def smi(tmp_path: Path, *argv: str, gpus: tuple[Gpu, ...] = (BOARD,), **faults: object) -> tuple[int, str]:
    code, out, err = NvidiaSmi(tmp_path, gpus, Faults(faults)).run(argv)
    assert err == ""
    return code, out


def test_a_query_is_answered_in_the_formats_of_nvidia_smi(tmp_path: Path) -> None:
    assert smi(tmp_path, *QUERY, "--format=csv,noheader,nounits") == (0, "NVIDIA L4, GPU-1, 580.126.09, 23034, 8.9, Enabled\n")
    assert smi(tmp_path, "--query-gpu=index,memory.total,temperature.gpu,utilization.gpu,pci.bus_id", "--format=csv") == (
        0,
        "index, memory.total [MiB], temperature.gpu, utilization.gpu [%], pci.bus_id\n0, 23034 MiB, 34, 0 %, 00000000:1E:00.0\n",
    )
    assert smi(tmp_path, "-L", gpus=(BOARD, BOARD)) == (0, "GPU 0: NVIDIA L4 (UUID: GPU-1)\nGPU 1: NVIDIA L4 (UUID: GPU-1)\n")
    used, free, total = smi(tmp_path, "--query-gpu=memory.used,memory.free,memory.total", "--format=csv,noheader,nounits")[1].split(", ")
    assert int(used) == 0 and 22_000 < int(free) < int(total)


def test_unknown_fields_and_arguments_are_refused_as_nvidia_smi_does(tmp_path: Path) -> None:
    assert smi(tmp_path, "--query-gpu=name,foo", "--format=csv") == (2, 'Field "foo" is not a valid field to query.\n\n')
    assert smi(tmp_path, "--query-gpu=name")[0] == 2
    assert smi(tmp_path, "--sideways")[0] == 2
    assert smi(tmp_path, "-i", "3", "-L") == (6, "No devices were found\n")


def test_no_gpu_answers_as_a_machine_without_a_driver(tmp_path: Path) -> None:
    for kept in ({"gpus": ()}, {"no_gpu": True}):
        code, out = smi(tmp_path, "-L", **kept)  # type: ignore[arg-type]
        assert code == 9 and "couldn't communicate with the NVIDIA driver" in out


def test_faults_change_the_board_and_add_a_stranger(tmp_path: Path) -> None:
    assert "535.54, 2048 MiB" in smi(tmp_path, "--query-gpu=driver_version,memory.total", "--format=csv", driver="535.54", vram_mib=2048)[1]
    apps = ["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
    assert smi(tmp_path, *apps) == (0, "")
    assert smi(tmp_path, *apps, other_gpu_process=True) == (0, "4242, python3, 4096 MiB\n")


def test_the_table_carries_the_driver_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    table = smi(tmp_path)[1]
    assert "SIMULATED" in table and "Driver Version: 580.126.09" in table and "CUDA Version: 13.0" in table
    assert len({len(line) for line in table.splitlines()[1:]}) == 1


def test_a_board_without_ecc_says_so(tmp_path: Path) -> None:
    board = Gpu("Tesla T4", 15360, "535.1", "GPU-2", "7.5", None)
    assert smi(tmp_path, "--query-gpu=ecc.mode.current", "--format=csv,noheader", gpus=(board,)) == (0, "[N/A]\n")


def test_df_has_one_volume_in_every_shape_that_is_asked_for() -> None:
    assert df(["-Pk", "/home"], 100, None)[1].split("\n")[1] == "/dev/root 104857600 29360128 75497472 28% /"
    assert df(["-B1", "--output=avail", "/"], 100, 7) == (0, f"Avail\n{7 << 30}\n", "")
    assert df(["-BG", "--output=size,avail", "/"], 100, 7)[1].split("\n")[1] == "100G 7G"
    assert df(["-h"], 100, 7)[1].split("\n")[1] == "/dev/root 100G 93G 7G 93% /"
    assert df(["--output=colour"], 100, 7)[0] == 1


def test_listeners_are_sshd_everywhere_and_the_machines_own_and_nobody_elses(box: Box) -> None:
    code = (
        "import socket,time; s=socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)"
    )
    bind = f'python3 -c "{code}"'
    _, out, _ = box.client.exec_command(bind)
    port = int(out.readline())
    status, shown, _ = box.run("sudo -n ss -H -ltnp")
    rows = {line.split()[3]: line for line in shown.splitlines()}
    assert status == 0 and {"0.0.0.0:22", "[::]:22", "127.0.0.53%lo:53", f"127.0.0.1:{port}"} == set(rows)
    assert "python3" in rows[f"127.0.0.1:{port}"] and "pid=" in rows["0.0.0.0:22"]
    assert str(box.port) not in shown
    assert box.out("ss -ltn").splitlines()[0].startswith("State")


def test_what_would_change_this_computer_is_not_run(box: Box) -> None:
    assert box.run("docker run x")[::2] == (1, "SIMULATED: docker is not run in a rehearsal\n")
    assert box.run("sudo -n apt-get install -y gcc")[::2] == (0, "SIMULATED: apt-get does nothing in a rehearsal\n")
    assert box.run("sudo -u root -E A=1 sh -c 'echo $A'")[1] == "1\n"
    assert (
        box.run("sudo chown ubuntu:ubuntu . && sudo install -d -o ubuntu -g ubuntu -m 0700 made && stat -c %a made || stat -f %Lp made")[1]
        == "700\n"
    )
    assert box.run("chown ubuntu /no/such/file")[0] == 1


def test_an_environment_that_is_made_holds_the_simulated_server_and_downloads_nothing(box: Box) -> None:
    box.out('python3 -m venv venv1 && venv1/bin/pip install --quiet "vllm==0.33.0"')
    assert box.out("venv1/bin/vllm --version") == "0.33.0 (SIMULATED by gpulease)"
    box.out('uv venv --quiet venv2 && uv pip install --quiet --python venv2/bin/python "sglang==0.5.23"')
    assert box.out("venv2/bin/sglang version").startswith("0.5.23")
    assert box.run("venv1/bin/pip install vllm==0.20.0")[0] == 1
    assert box.out("python3 -c 'print(6*7)'") == "42"


def test_the_time_is_utc_and_synchronised(box: Box) -> None:
    assert box.out("timedatectl show -p NTPSynchronized --value") == "yes"
    assert "Timezone=Etc/UTC" in box.out("timedatectl show")


def test_the_machines_uptime_is_its_own(box: Box) -> None:
    assert float(box.out('cut -d" " -f1 "$GPULEASE_ROOT/proc/uptime"')) < 600


def test_a_description_that_is_no_machine_is_refused_in_words() -> None:
    for text, words in (
        ("[]", "not a JSON object"),
        ("{", "JSON document"),
        ('{"user_data_b64": "*"}', "base64"),
        ('{"gpus": [{"name": "x"}]}', "memory_mib"),
        ('{"faults": {"bogus": 1}}', "unknown fault 'bogus'"),
        ('{"faults": {"vram_mib": "much"}}', "must be int"),
        ('{"faults": {"answers": "polite"}}', "one of"),
    ):
        with pytest.raises(BadSpec, match=words.replace("(", r"\(")):
            parse_spec(text)
    assert parse_spec('{"gpus": [], "faults": {"drop_ssh_for_s": 2}}').gpus == ()
    assert L4["ecc"] == "Enabled"
