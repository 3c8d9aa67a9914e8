"""Profiles: what is accepted becomes exact, and every mistake is told with its line and what was expected."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from provisioner import guards, profile, profile_fields, runtimes
from provisioner.errors import Exit, RefusedError, UsageError
from provisioner.model import Requirements

COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
GOOD = f"""\
profile: 1
name: mine
about: one sentence
needs:
  gpu: L4
  gpus: 1
  vram_gib: 20.5
  driver: "570"
  disk_gib: 60
  regions: [us-east-1, eu-west-1]
  types: [g6.xlarge]
  purchase: [spot, on-demand]
model:
  id: Qwen/Qwen3-0.6B
  revision: {COMMIT}
  name: tiny
runtime:
  name: vllm
  version: "0.33.0"
  flags:
    max-model-len: 8192
    gpu-memory-utilization: 0.92
    enforce-eager: true
  env:
    VLLM_LOGGING_LEVEL: INFO
eval:
  set: ./cases.jsonl
  max_tokens: 64
  temperature: 0.70
  seed: 7
load:
  vantages: [tunnel]
  concurrency: 8
  warmup: 0
  timeout_s: 30
  rate_per_s: 2.50
budget:
  usd: "1.25"
  minutes: 45
thresholds:
  accuracy_percent: 50
  ttft_p95_ms: 2000
waive: [guest-twin]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cases.jsonl").write_text('{"id":"a"}\n')
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(text)
    return path


def swap(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


def test_a_profile_becomes_exact_numbers(folder: Path) -> None:
    path = written(folder, GOOD)
    found = profile.load(path)
    assert found.requirements == Requirements("L4", 1, 20992, "570", 60, ("us-east-1", "eu-west-1"), ("g6.xlarge",), ("spot", "on-demand"))
    assert (found.name, found.about, found.source) == ("mine", "one sentence", str(path))
    assert (found.budget_micro_usd, found.max_seconds) == (1_250_000, 2700)
    assert (found.model.id, found.model.revision, found.model.served_name) == ("Qwen/Qwen3-0.6B", COMMIT, "tiny")
    assert found.runtime.flags == {"max-model-len": 8192, "gpu-memory-utilization": "0.92", "enforce-eager": True}
    assert found.runtime.env == {"VLLM_LOGGING_LEVEL": "INFO"}
    assert (found.eval.temperature, found.load.rate_per_s, found.load.vantages) == ("0.7", "2.5", ("tunnel",))
    assert found.eval.set == str(folder / "cases.jsonl")
    assert found.thresholds == {"accuracy_percent": 50, "ttft_p95_ms": 2000}
    assert found.waived == ("guest-twin",)
    assert found.text == GOOD and found.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()


def test_what_the_account_has_of_its_own_is_named_under_launch(folder: Path) -> None:
    own = "launch: {image: ami-0123456789abcdef0, security_group: sg-01234567, subnet: subnet-0123456789abcdef0, reach: endpoint}\n"
    one_region = swap("regions: [us-east-1, eu-west-1]", "regions: [us-east-1]")
    found = profile.load(written(folder, one_region + own)).launch
    assert (found.image, found.security_group, found.subnet) == ("ami-0123456789abcdef0", "sg-01234567", "subnet-0123456789abcdef0")
    assert (found.reach, found.fleet) == ("endpoint", False)
    through = profile.load(written(folder, GOOD + "launch: {fleet: true, subnet: null}\n"))
    assert through.launch.fleet and through.rehearsed().launch.fleet, "a rehearsal is about that too"
    left_out = profile.load(written(folder, GOOD)).launch
    assert (left_out.image, left_out.security_group, left_out.subnet, left_out.reach) == (None, None, None, "address")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("image: ubuntu-24.04", ["launch.image", "found 'ubuntu-24.04'", "the id of an image, like ami-0123456789abcdef0"]),
        ("image: sg-01234567", ["launch.image", "like ami-"]),
        ("security_group: default", ["launch.security_group", "the id of a security group, like sg-0123456789abcdef0"]),
        ("subnet: subnet-xyz", ["launch.subnet", "the id of a subnet"]),
        ("reach: endpont", ["launch.reach", "a way in (address, endpoint, ssm)", "nearest: endpoint"]),
        ("image: ami-01234567", ["launch.image", "an id belongs to one region", "found 2"]),
        ("fleet: 1", ["launch.fleet", "true: asked for through an EC2 Fleet"]),
        ("ami: ami-01234567", ["launch.ami", "unknown key", "image, security_group, subnet, reach, fleet"]),
    ],
)
def test_a_wrong_word_under_launch_is_told_with_its_line(folder: Path, line: str, words: list[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        profile.load(written(folder, GOOD + f"launch:\n  {line}\n"))
    assert f"p.yaml:{len(GOOD.splitlines()) + 2}: " in refused.value.what
    assert [word for word in words if word not in refused.value.what] == []


def test_what_is_left_out_has_a_default(folder: Path) -> None:
    short = f"profile: 1\nname: a\nneeds: {{}}\nmodel: {{id: a/b, revision: {COMMIT}}}\nruntime: {{name: vllm, version: 0.33.0}}\n"
    found = profile.load(written(folder, short + "eval: {set: ./cases.jsonl}\nbudget: {usd: 1, minutes: 5}\n"))
    assert found.requirements == Requirements()
    assert (found.load.concurrency, found.load.vantages, found.load.rate_per_s) == (4, ("host", "tunnel"), None)
    assert (found.thresholds, found.waived, found.model.served_name) == ({}, (), "a/b")


@pytest.mark.parametrize(
    ("usd", "micro"),
    [
        ('"1.00"', 1_000_000),
        ("1.00", 1_000_000),
        ("1", 1_000_000),
        ("0.1", 100_000),
        ('"0.000001"', 1),
        ("$2.50", 2_500_000),
        ("0.29", 290_000),
    ],
)
def test_money_is_exact(folder: Path, usd: str, micro: int) -> None:
    assert profile.load(written(folder, swap('"1.25"', usd))).budget_micro_usd == micro


@pytest.mark.parametrize(("gib", "mib"), [("20", 20480), ("20.5", 20992), ("0", 0), ('"22.4"', 22938), ("0.0001", 1)])
def test_memory_is_exact_and_a_part_of_a_mib_counts_whole(folder: Path, gib: str, mib: int) -> None:
    assert profile.load(written(folder, swap("20.5", gib))).requirements.vram_mib == mib


def test_a_threshold_may_have_a_fraction_and_keeps_it(folder: Path) -> None:
    found = profile.load(written(folder, swap("accuracy_percent: 50", "accuracy_percent: 99.50")))
    assert found.thresholds == {"accuracy_percent": "99.5", "ttft_p95_ms": 2000}


@pytest.mark.parametrize("gpu", ["L4", "l4", "NVIDIA L4", "nvidia l4"])
def test_a_gpu_may_be_written_as_nvidia_smi_shows_it(folder: Path, gpu: str) -> None:
    assert profile.load(written(folder, swap("gpu: L4", f"gpu: {gpu}"))).requirements.gpu == "L4"


def test_a_gpu_that_ec2_does_not_rent_is_known_too(folder: Path) -> None:
    text = swap("gpu: L4", "gpu: NVIDIA GeForce RTX 4090").replace("  types: [g6.xlarge]\n", "")
    assert profile.load(written(folder, text)).requirements.gpu == "RTX 4090"


def test_a_local_model_needs_no_revision_and_is_served_by_its_last_part(folder: Path) -> None:
    text = swap("id: Qwen/Qwen3-0.6B", "id: /srv/models/tiny-llama").replace(f"  revision: {COMMIT}\n", "").replace("  name: tiny\n", "")
    found = profile.load(written(folder, text))
    assert (found.model.revision, found.model.served_name) == (None, "tiny-llama")


BAD = [
    # (old, new, line, words that must be there)
    ("profile: 1", "profile: 2", 1, ["profile: found 2; expected 1"]),
    ("profile: 1", 'profile: "1"', 1, ["profile: found '1'"]),
    ("profile: 1\n", "", 1, ["profile: missing; expected 1"]),
    ("name: mine", "name: My Profile", 2, ["name: found 'My Profile'; expected a name of small letters"]),
    ("name: mine", "name: " + "a" * 41, 2, ["name: found", "at most 40 characters"]),
    ("name: mine", "name: 5", 2, ["name: found 5"]),
    ("name: mine\n", "", 1, ["name: missing"]),
    ("about: one sentence", "about: [a, b]", 3, ["about: found a list; expected one line of text"]),
    ("about: one", "abuot: one", 3, ["abuot: unknown key", "nearest: about"]),
    ("about: one sentence", "vram_gib: 20", 3, ["vram_gib: unknown key", "it belongs under needs"]),
    ("about: one sentence", "minutes: 20", 3, ["minutes: unknown key", "it belongs under budget"]),
    ("gpu: L4", "gpu: L40X", 5, ["needs.gpu: found 'L40X'", "nearest: L40S"]),
    ("gpu: L4", "gpu: A100 80GB", 5, ["needs.gpu: found 'A100 80GB'", "its memory goes into vram_gib", "nearest: A100"]),
    ("gpu: L4", "gpu: H100", 11, ["needs.types.0: g6.xlarge has 1 × L4; expected 1 × H100"]),
    ("gpu: L4", "gpu: 4", 5, ["needs.gpu: found 4; expected a GPU model"]),
    ("gpu: L4", "gpuz: L4", 5, ["needs.gpuz: unknown key", "nearest: gpu"]),
    ("gpus: 1", "gpus: one", 6, ["needs.gpus: found 'one'", "a whole number from 0 to 16"]),
    ("gpus: 1", "gpus: 17", 6, ["needs.gpus: found 17"]),
    ("gpus: 1", "gpus: true", 6, ["needs.gpus: found true"]),
    ("gpus: 1", "gpus: 1.0", 6, ["needs.gpus: found '1.0'"]),
    ("gpus: 1", "gpus: 4", 11, ["needs.types.0: g6.xlarge has 1 × L4; expected 4 × L4"]),
    ("gpus: 1", "gpus: 0", 5, ["needs.gpu: asks for a GPU, but gpus is 0"]),
    ("vram_gib: 20.5", "vram_gib: 24", 7, ["needs.vram_gib: asks for 24576 MiB, but an L4 shows 23034 MiB", "L40S 46068 MiB"]),
    ("vram_gib: 20.5", "vram_gib: -1", 7, ["needs.vram_gib: found -1; expected GiB per GPU"]),
    ("vram_gib: 20.5", "vram_gib: 20GB", 7, ["needs.vram_gib: found '20GB'"]),
    ("vram_gib: 20.5", "vram_gib: 2e1", 7, ["needs.vram_gib: found '2e1'"]),
    ("vram_gib: 20.5", "vram_gib: .inf", 7, [".inf is not a quantity"]),
    ('driver: "570"', "driver: new", 8, ["needs.driver: found 'new'; expected a driver version"]),
    ("disk_gib: 60", "disk_gib: 4", 9, ["needs.disk_gib: found 4", "from 8 to 16384"]),
    ("disk_gib: 60", "disk_gib: 010", 9, ["needs.disk_gib: found '010'"]),
    ("[us-east-1, eu-west-1]", "us-east-1", 10, ["needs.regions: found 'us-east-1'; expected a list of at most 8 regions"]),
    (
        "[us-east-1, eu-west-1]",
        f"[{', '.join(f'us-east-{n}' for n in range(1, 10))}]",
        10,
        ["needs.regions: found a list; expected a list of at most 8"],
    ),
    ("[us-east-1, eu-west-1]", "[us-east]", 10, ["needs.regions.0: found 'us-east'; expected a region"]),
    ("[us-east-1, eu-west-1]", "[us-east-1, us-east-1]", 10, ["needs.regions: us-east-1 twice; expected each name once"]),
    ("[g6.xlarge]", "[g6.xlarg]", 11, ["needs.types.0: found 'g6.xlarg'", "nearest: g6.xlarge"]),
    ("[g6.xlarge]", "[g6.xlarge, g5.xlarge]", 11, ["needs.types.1: g5.xlarge has 1 × A10G; expected 1 × L4"]),
    ("[spot, on-demand]", "[spto]", 12, ["needs.purchase.0: found 'spto'; expected a way to buy (on-demand, spot); nearest: spot"]),
    ("[spot, on-demand]", "true", 12, ["needs.purchase: found true; expected a list of ways to buy"]),
    ("id: Qwen/Qwen3-0.6B", "id: Qwen3", 14, ["model.id: found 'Qwen3'; expected owner/name"]),
    ("id: Qwen/Qwen3-0.6B", "id: hub.example/Qwen/Qwen3-0.6B", 14, ["leave out the address around it"]),
    ("id: Qwen/Qwen3-0.6B", "id: ../../etc", 14, ["model.id: found '../../etc'"]),
    ("id: Qwen/Qwen3-0.6B", "id: --config/x", 14, ["model.id: found '--config/x'"]),
    ("id: Qwen/Qwen3-0.6B", "id: a/$(id)", 14, ["model.id: found 'a/$(id)'"]),
    ("id: Qwen/Qwen3-0.6B", "id: /srv/../etc", 14, ["an absolute path"]),
    ("id: Qwen/Qwen3-0.6B", "id: /srv/m", 15, ["model.revision: a local path has no revision"]),
    (COMMIT, "main", 15, ["model.revision: found 'main'; expected a commit of 40 hex digits; a branch such as main can change"]),
    (COMMIT, "c1899de", 15, ["model.revision: found 'c1899de'", "this has 7"]),
    (COMMIT, "null", 15, ["model.revision: missing; expected the commit of Qwen/Qwen3-0.6B"]),
    (f"  revision: {COMMIT}\n", "", 13, ["model.revision: missing"]),
    ("name: tiny", 'name: "a b"', 16, ["model.name: found 'a b'"]),
    ("name: vllm", "name: vlm", 18, ["runtime.name: found 'vlm'; expected a runtime (sglang, vllm); nearest: vllm"]),
    ('version: "0.33.0"', "version: latest", 19, ["runtime.version: found 'latest'; expected a version"]),
    ('  version: "0.33.0"\n', "", 17, ["runtime.version: missing"]),
    ("max-model-len: 8192", "max-mode-len: 8192", 21, ["runtime.flags.max-mode-len:", "has no flag --max-mode-len", "--max-model-len"]),
    ("max-model-len: 8192", "--max-model-len: 8192", 21, ["without its leading dashes", "nearest: max-model-len"]),
    ("max-model-len: 8192", "max_model_len: 8192", 21, ["nearest: max-model-len"]),
    ("max-model-len: 8192", "host: 0.0.0.0", 21, ["runtime.flags.host:", "127.0.0.1"]),
    ("max-model-len: 8192", "hos: 0.0.0.0", 21, ["runtime.flags.hos:"]),
    ("max-model-len: 8192", "port: 80", 21, ["runtime.flags.port:"]),
    ("max-model-len: 8192", "config: /tmp/x", 21, ["runtime.flags.config:"]),
    ("max-model-len: 8192", "api-key: abc", 21, ["runtime.flags.api-key:", "no secrets"]),
    ("max-model-len: 8192", "trust-remote-code: true", 21, ["runtime.flags.trust-remote-code:"]),
    ("max-model-len: 8192", 'dtype: "half\\nx"', 21, ["runtime.flags.dtype:"]),
    ("max-model-len: 8192", "dtype: hf_abcdefghijklmnop", 21, ["what looks like a secret"]),
    ("enforce-eager: true", "enforce-eager: sure", 23, ["runtime.flags.enforce-eager:", "expected true or false"]),
    ("  flags:\n", "  flags: []\n  x:\n", 20, ["runtime.flags: found a list; expected a mapping of flags"]),
    ("VLLM_LOGGING_LEVEL: INFO", "HF_TOKEN: abc", 25, ["runtime.env.HF_TOKEN:", "no secrets", "export it in the shell"]),
    ("VLLM_LOGGING_LEVEL: INFO", "OPENAI_APIKEY: abc", 25, ["no secrets"]),
    ("VLLM_LOGGING_LEVEL: INFO", "DB_PASSWORD: abc", 25, ["no secrets"]),
    ("VLLM_LOGGING_LEVEL: INFO", "OTHER: sk-abcdefghijklmnop", 25, ["what looks like a secret"]),
    ("VLLM_LOGGING_LEVEL: INFO", "vllm_level: INFO", 25, ["runtime.env.vllm_level:", "a name of capitals"]),
    ("VLLM_LOGGING_LEVEL: INFO", "VLLM_USE_V1: true", 25, ['in quotes: "true"']),
    ("VLLM_LOGGING_LEVEL: INFO", "PATH: /tmp", 25, ["runtime.env.PATH:"]),
    ("  env:\n", "  command: vllm serve\n  env:\n", 24, ["runtime.command: found 'vllm serve'", "arguments go into flags"]),
    ("set: ./cases.jsonl", "set: smok", 27, ["eval.set: found 'smok'; expected an eval set"]),
    ("set: ./cases.jsonl", "set: ./gone.jsonl", 27, ["eval.set: found", "is not a file"]),
    ("max_tokens: 64", "max_tokens: 0", 28, ["eval.max_tokens: found 0"]),
    ("temperature: 0.70", "temperature: 2.1", 29, ["eval.temperature: found '2.1'; expected a number from 0 to 2"]),
    ("temperature: 0.70", "temperature: hot", 29, ["eval.temperature: found 'hot'"]),
    ("seed: 7", "seed: -1", 30, ["eval.seed: found -1"]),
    ("vantages: [tunnel]", "vantages: [tunel]", 32, ["load.vantages.0: found 'tunel'", "nearest: tunnel"]),
    ("vantages: [tunnel]", "vantages: []", 32, ["load.vantages: found a list; expected a list of where to measure from"]),
    ("concurrency: 8", "concurrency: 100000", 33, ["load.concurrency: found 100000"]),
    ("concurrency: 8", "concurency: 8", 33, ["load.concurency: unknown key", "nearest: concurrency"]),
    ("timeout_s: 30", "timeout_s: 1:30:00", 35, ["load.timeout_s: found '1:30:00'"]),
    ("rate_per_s: 2.50", "rate_per_s: 0", 36, ["load.rate_per_s: found 0; expected requests per second"]),
    ('usd: "1.25"', "usd: 0", 38, ["budget.usd: found 0; expected an amount in US dollars above 0"]),
    ('usd: "1.25"', "usd: -5", 38, ["budget.usd: found -5"]),
    ('usd: "1.25"', "usd: 1.0000001", 38, ["budget.usd: found '1.0000001'", "at most six decimals"]),
    ('usd: "1.25"', "usd: 1e3", 38, ["budget.usd: found '1e3'"]),
    ('usd: "1.25"', "usd: a lot", 38, ["budget.usd: found 'a lot'"]),
    ('usd: "1.25"', "usd: true", 38, ["budget.usd: found true"]),
    ('usd: "1.25"', "usd: .nan", 38, [".nan is not a quantity"]),
    ('usd: "1.25"', 'usd: "5"\n  usd: "5000"', 39, ["key 'usd' is written again (first on line 38)"]),
    ('  usd: "1.25"\n', "", 37, ["budget.usd: missing"]),
    ("minutes: 45", "minutes: 4", 39, ["budget.minutes: found 4", "from 5 to 1440"]),
    ("minutes: 45", "minutes: 1441", 39, ["budget.minutes: found 1441"]),
    ("accuracy_percent: 50", "accuracy_percent: 101", 41, ["thresholds.accuracy_percent: found 101; expected a percentage, 0 to 100"]),
    (
        "accuracy_percent: 50",
        "accuracy: 50",
        41,
        ["thresholds.accuracy: found 'accuracy'", "nearest: accuracy_percent"],
    ),
    ("ttft_p95_ms: 2000", "ttft_p95: 2000", 42, ["thresholds.ttft_p95: found 'ttft_p95'", "nearest: ttft_p95_ms"]),
    ("ttft_p95_ms: 2000", "ttft_p95_ms: fast", 42, ["thresholds.ttft_p95_ms: found 'fast'; expected a number"]),
    ("[guest-twin]", "[gest-twin]", 43, ["waive.0: found 'gest-twin'; expected a guard", "nearest: guest-twin"]),
    ("[guest-twin]", "[watchdog, watchdog]", 43, ["waive: watchdog twice"]),
    ("[guest-twin]", "guest-twin", 43, ["waive: found 'guest-twin'; expected a list of guards"]),
    ("needs:\n", "needs: 3\nneds:\n", 4, ["needs: found 3; expected a mapping"]),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"), BAD, ids=[f"{new.strip()[:40] or 'without ' + old.strip()[:30]}" for old, new, _, _ in BAD]
)
def test_a_mistake_is_told_with_its_line(folder: Path, old: str, new: str, line: int, words: list[str]) -> None:
    path = written(folder, swap(old, new))
    with pytest.raises(RefusedError) as caught:
        profile.load(path)
    said = caught.value.what
    at_line = [part for part in said.splitlines() if part.strip().startswith(f"{path}:{line}: ")]
    assert at_line, said
    for word in words:
        assert any(word in part for part in at_line), said
    assert caught.value.code == Exit.REFUSED and "abcdefghijklmnop" not in said


def test_all_mistakes_are_told_together_in_the_order_of_the_file(folder: Path) -> None:
    text = swap("gpu: L4", "gpu: L40X").replace("minutes: 45", "minutes: 1").replace("name: vllm", "name: vlm").replace("about:", "abut:")
    with pytest.raises(RefusedError) as caught:
        profile.load(written(folder, text))
    first, *rest = caught.value.what.splitlines()
    assert first.endswith("4 things to correct")
    assert [int(re.findall(r"p\.yaml:(\d+): ", line)[0]) for line in rest] == [3, 5, 18, 39]


def test_all_contradictions_are_told_together(folder: Path) -> None:
    text = swap("vram_gib: 20.5", "vram_gib: 24").replace("[g6.xlarge]", "[g6.xlarge, g5.xlarge]").replace("max-model-len: 8192", "port: 1")
    with pytest.raises(RefusedError) as caught:
        profile.load(written(folder, text))
    assert "3 things" in caught.value.what or "4 things" in caught.value.what


@pytest.mark.parametrize("text", ["just words", "- a\n- b", "5"])
def test_a_file_that_is_no_mapping_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(RefusedError, match=r":1: .* expected a mapping"):
        profile.load(written(folder, text))


def test_a_percentile_that_the_smoke_set_cannot_give_is_not_asked_of_it() -> None:
    """p95 needs 200 answers, p90 100; a threshold that is never measured is never met."""
    assert not [name for shipped in profile.names() for name in profile.load(shipped).thresholds if re.search("p9", name)]


def test_a_terminal_obeys_nothing_in_a_complaint(folder: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        profile.load(written(folder, swap("name: mine", 'name: "\u202ex\u200b"').replace("about:", '"a\u202eb":')))
    assert all(line.isprintable() for line in caught.value.what.splitlines())


def test_an_unknown_name_names_the_nearest_and_all_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        profile.load("smok")
    assert "'smok'; nearest: smoke" in caught.value.what
    assert all(name in caught.value.why for name in profile.names())


def test_a_file_in_the_current_folder_is_never_taken_for_a_shipped_profile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "smoke.yaml").write_text(GOOD)
    (folder / "mine.yaml").write_text(GOOD)
    monkeypatch.chdir(folder)
    assert profile.load("smoke").name == "smoke"
    assert profile.load("smoke.yaml").name == profile.load("./smoke.yaml").name == "mine"
    with pytest.raises(UsageError) as caught:
        profile.load("mine")
    assert caught.value.next == "use the path ./mine.yaml"


def test_a_path_that_cannot_be_read_is_told_as_such(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    for path, words in [(folder / "gone.yaml", "does not exist"), (folder, "is not a file"), (folder / "pipe.yaml", "is not a file")]:
        with pytest.raises(UsageError, match=words):
            profile.load(path)


def test_an_eval_set_is_found_beside_the_profile_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, GOOD)
    monkeypatch.chdir("/")
    assert profile.load(path).eval.set == str(folder / "cases.jsonl")


@pytest.mark.parametrize("name", profile.names())
def test_every_shipped_profile_loads_and_bears_its_own_name(name: str) -> None:
    found = profile.load(name)
    assert found.name == name and found.about
    assert found.eval.set in profile_fields.eval_sets()


def test_the_shipped_profiles_are_these() -> None:
    assert profile.names() == ["cpu-static", "qwen3-4b-l4-sglang", "qwen3-8b-l4", "smoke"]


def test_the_smoke_profile_is_cheap_and_lenient_enough_to_rehearse() -> None:
    smoke = profile.load("smoke")
    assert (smoke.budget_micro_usd, smoke.max_seconds) == (1_000_000, 45 * 60)
    assert smoke.thresholds == {"accuracy_percent": 40, "error_percent": 0}
    assert smoke.requirements.types == ("g6.xlarge",) and smoke.runtime.name == "vllm" and not smoke.waived


def test_names_are_those_of_the_parts_that_give_them_meaning() -> None:
    assert runtimes.names() == profile_fields.RUNTIMES
    assert set(profile_fields.GUARDS) == set(guards.NAMES)


def test_every_gpu_of_the_catalogue_may_be_asked_for_by_family() -> None:
    assert {"T4", "A10G", "L4", "L40S", "A100", "H100", "H200", "B200", "B300", "V100", "T4G", "RTX PRO 6000"} <= set(profile_fields.gpus())
    assert not [name for name in profile_fields.gpus() if "NVIDIA" in name or "GB" in name.split() or "(" in name]


def test_the_schema_accepts_what_ships_and_knows_the_names() -> None:
    schema = profile.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for name in profile.names():
        import yaml

        check.validate(yaml.safe_load(profile.load(name).text))
    assert not check.is_valid({"profile": 1, "name": "x"})
    text = json.dumps(schema)
    assert "g6.xlarge" in text and '"L40S"' in text and '"watchdog"' in text and '"smoke"' in text


def test_loading_a_profile_imports_nothing_heavy() -> None:
    heavy = ("boto3", "paramiko", "moto", "jinja2")
    code = f"import sys; from provisioner import profile; profile.load('smoke'); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
