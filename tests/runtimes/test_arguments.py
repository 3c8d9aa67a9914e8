"""What a profile may say to a server, and what is refused before anything is rented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import RefusedError
from provisioner.runtimes import Runtime, ServeSpec, get, names
from provisioner.runtimes.arguments import table
from provisioner.runtimes.sglang import RESERVED as SGLANG_RESERVED
from provisioner.runtimes.vllm import RESERVED as VLLM_RESERVED
from provisioner.secret import Secret

REVISION = "c1899de289a04d12100db370d81485cdf75e47ca"
KEY = "k1234567890abcdefGHIJ-_"


def spec(**changes: Any) -> ServeSpec:
    given = {
        "model": "Qwen/Qwen3-0.6B",
        "revision": REVISION,
        "name": "qwen",
        "version": "0.33.0",
        "port": 43511,
        "api_key": Secret(KEY),
        **changes,
    }
    return ServeSpec(**given)


def argv(engine: str, **changes: Any) -> tuple[str, ...]:
    return get(engine).argv(spec(**changes))


def test_vllm_is_told_everything_that_keeps_it_private_and_pinned() -> None:
    assert argv("vllm", concurrency=4) == (
        *("serve", "Qwen/Qwen3-0.6B", f"--revision={REVISION}", "--host=127.0.0.1", "--port=43511"),
        *("--served-model-name", "qwen", "--disable-fastapi-docs", "--max-num-seqs=8"),
    )


def test_sglang_takes_its_key_from_a_file() -> None:
    assert argv("sglang", concurrency=30) == (
        *("serve", "--model-path", "Qwen/Qwen3-0.6B", f"--revision={REVISION}", "--host=127.0.0.1", "--port=43511"),
        *("--served-model-name", "qwen", "--enable-metrics", "--config", "server.yaml", "--max-running-requests=60"),
    )
    assert get("sglang").config(spec()) == Secret(f'api-key: "{KEY}"\n')


@pytest.mark.parametrize("engine", names())
def test_no_secret_is_on_the_command_line_or_in_a_repr(engine: str) -> None:
    one = spec(hf_token=Secret("hf_" + "x" * 30))
    assert KEY not in " ".join(get(engine).argv(one)) + repr(one)
    assert "hf_xxx" not in " ".join(get(engine).argv(one)) + repr(one)


@pytest.mark.parametrize(("concurrency", "seqs"), [(1, 8), (4, 8), (5, 10), (64, 128)])
def test_room_is_made_for_twice_the_concurrency_and_at_least_eight(concurrency: int, seqs: int) -> None:
    assert f"--max-num-seqs={seqs}" in argv("vllm", concurrency=concurrency)


@pytest.mark.parametrize("written", ["max-num-seqs", "max_num_seqs", "--max-num-seqs"])
def test_the_profiles_own_number_of_sequences_stands(written: str) -> None:
    assert [word for word in argv("vllm", flags={written: 64}) if "max-num-seqs" in word] == ["--max-num-seqs=64"]


def test_several_gpus_are_used_together_unless_the_profile_says_how() -> None:
    assert "--tensor-parallel-size=4" in argv("vllm", gpus=4)
    assert "--tp-size=4" in argv("sglang", gpus=4)
    assert not any("tensor" in word for word in argv("vllm", gpus=4, flags={"data-parallel-size": 4}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"max-model-len": 8192}, ["--max-model-len=8192"]),
        ({"max-model-len": -1}, ["--max-model-len=-1"]),
        ({"gpu-memory-utilization": "0.85"}, ["--gpu-memory-utilization=0.85"]),
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enforce-eager": False}, ["--no-enforce-eager"]),
        ({"enable-prefix-caching": False}, ["--disable-prefix-caching"]),
        ({"trust-remote-code": False}, ["--no-trust-remote-code"]),
        ({"dtype": "half"}, ["--dtype=half"]),
        ({"speculative-config": {"method": "ngram", "n": 2}}, ['--speculative-config={"method":"ngram","n":2}']),
        ({"allowed-media-domains": ["a.example", "b.example"]}, ["--allowed-media-domains", "a.example", "b.example"]),
        ({"chat-template": "$(touch /tmp/owned) `id` 'x'"}, ["--chat-template=$(touch /tmp/owned) `id` 'x'"]),
    ],
)
def test_a_flag_becomes_the_argument_the_parser_expects(flags: dict[str, Any], words: list[str]) -> None:
    assert list(argv("vllm", flags=flags))[-len(words) :] == words


@pytest.mark.parametrize(
    ("engine", "flags", "said", "why"),
    [
        ("vllm", {"max-model-length": 1}, "no flag --max-model-length", "nearest is --max-model-len"),
        ("vllm", {"max-model": 1}, "no flag --max-model", "nearest is --max-model-len"),
        ("vllm", {"context-length": 1}, "no flag --context-length", "here it is --max-model-len"),
        ("vllm", {"swap-space": 4}, "no flag --swap-space", ""),
        ("sglang", {"max-model-len": 1}, "no flag --max-model-len", "here it is --context-length"),
        ("sglang", {"gpu-memory-utilization": "0.9"}, "0.5.23 has no flag", "here it is --mem-fraction-static"),
        ("vllm", {"zzzzzzzzzzzz": 1}, "no flag --zzzzzzzzzzzz", "none is spelled like it"),
        ("vllm", {"dtype": "bf16"}, "--dtype is 'bf16'", "did you mean bfloat16?"),
        ("vllm", {"max-model-len": True}, "--max-model-len is True", "a value"),
        ("vllm", {"max-model-len": None}, "--max-model-len is None", "a value"),
        ("vllm", {"enforce-eager": "yes"}, "--enforce-eager is 'yes'", "true or false"),
        ("vllm", {"chat-template": "a\nb"}, "--chat-template", "one line"),
        ("vllm", {"allowed-media-domains": ["--port", "1"]}, "--allowed-media-domains", "do not begin with -"),
        ("vllm", {"allowed-media-domains": []}, "--allowed-media-domains", "one or more"),
        ("vllm", {"max-model-len": 1, "max_model_len": 2}, "sets --max-model-len twice", "max_model_len"),
        ("vllm", {"enforce-eager": True, "no-enforce-eager": True}, "twice", "enforce-eager"),
        ("vllm", {"; rm -rf ~": 1}, "no flag", ""),
        ("vllm", {"trust-remote-code": True}, "runs Python from the model's repository", "consent"),
        ("sglang", {"trust_remote_code": "Qwen/Other@" + REVISION}, "runs Python", "consent"),
    ],
)
def test_what_the_server_would_not_take_is_refused_beforehand(engine: str, flags: dict[str, Any], said: str, why: str) -> None:
    with pytest.raises(RefusedError) as caught:
        argv(engine, flags=flags)
    assert said in caught.value.what and why in caught.value.why


def test_consent_to_the_models_own_code_names_the_commit() -> None:
    assert argv("vllm", flags={"trust-remote-code": f"Qwen/Qwen3-0.6B@{REVISION}"})[-1] == "--trust-remote-code"


@pytest.mark.parametrize(("engine", "flag"), [("vllm", f) for f in VLLM_RESERVED] + [("sglang", f) for f in SGLANG_RESERVED])
@pytest.mark.parametrize("spelled", ["{}", "{}_"])
def test_our_own_flags_cannot_be_overridden(engine: str, flag: str, spelled: str) -> None:
    assert flag in table(engine).flags, "a reserved flag that does not exist protects nothing"
    written = flag if spelled == "{}" else flag[2:].replace("-", "_")
    with pytest.raises(RefusedError, match="may not set"):
        argv(engine, flags={written: "x"})


@pytest.mark.parametrize("engine", names())
def test_every_flag_of_the_table_can_be_written(engine: str) -> None:
    runtime, reserved = get(engine), VLLM_RESERVED if engine == "vllm" else SGLANG_RESERVED
    for name, flag in table(engine).flags.items():
        if name in reserved or name == "--trust-remote-code":
            continue
        value: Any = True if flag.switch else flag.choices[0] if flag.choices else "1"
        words = runtime.argv(spec(flags={name: value}))
        assert words[-1] in (name, f"{name}={value}", value), name
        if flag.off:
            assert table(engine).flags[flag.off].off == name
            assert runtime.argv(spec(flags={name: False}))[-1] == flag.off


@pytest.mark.parametrize(("engine", "count"), [("vllm", 410), ("sglang", 559)])
def test_the_table_has_all_flags_but_help(engine: str, count: int) -> None:
    assert len(table(engine).flags) == count


def test_the_table_is_made_by_the_tool_from_a_dump(tmp_path: Path) -> None:
    def row(dest: str, action: str, nargs: Any, choices: Any = None) -> dict[str, Any]:
        return {"dest": dest, "flag": action, "nargs": nargs, "choices": choices, "deprecated": dest == "old", "default": "None"}

    flags = {
        "--help": row("help", "_HelpAction", 0),
        "--enable-x": row("x", "EnableDisableAction", 0),
        "--disable-x": row("x", "EnableDisableAction", 0),
        "--eager": row("eager", "EnableDisableAction", 0),
        "--no-eager": row("eager", "EnableDisableAction", 0),
        "--dtype": row("dtype", "_StoreAction", None, ["a", "b"]),
        "--names": row("names", "_StoreAction", "+"),
        "--token": row("token", "_StoreAction", "?"),
        "--old": row("old", "DeprecatedStoreConstAction", None),
        "--tp": row("tp", "_StoreAction", None),
        "--tp-size": row("tp", "_StoreAction", None),
    }
    (tmp_path / "dump.json").write_text(json.dumps({"engine": "e", "version": "1", "flags": flags}))
    tool = Path(__file__).parents[2] / "tools" / "compact_runtime_flags.py"
    made = json.loads(subprocess.run([sys.executable, tool, tmp_path / "dump.json"], capture_output=True, check=True).stdout)
    assert made["flags"] == {
        "--disable-x": {"switch": True, "off": "--enable-x"},
        "--dtype": {"choices": ["a", "b"]},
        "--eager": {"switch": True, "off": "--no-eager"},
        "--enable-x": {"switch": True, "off": "--disable-x"},
        "--names": {"many": True},
        "--no-eager": {"switch": True, "off": "--eager"},
        "--old": {"switch": True, "deprecated": True},
        "--token": {"optional": True},
        "--tp": {},
        "--tp-size": {},
    }


HOSTILE = [
    "$(touch x)",
    "`id`",
    "a;b",
    "a\nb",
    "a\0b",
    "--host=0.0.0.0",
    "-oProxyCommand=x",
    "../../etc",
    "a b",
    "",
    "\N{CYRILLIC SMALL LETTER A}/b",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["model", "revision", "name", "version", "command", "api_key", "hf_token"])
def test_a_field_with_a_hostile_value_is_refused(name: str, value: str) -> None:
    hidden = name in ("api_key", "hf_token")
    with pytest.raises(RefusedError) as caught:
        spec(**{name: Secret(value) if hidden else value})
    if hidden and value:
        assert value not in caught.value.what + caught.value.why


@pytest.mark.parametrize(
    "changes", [{"revision": None}, {"revision": "main"}, {"port": 70000}, {"concurrency": 0}, {"gpus": -1}, {"model": "/models/../etc"}]
)
def test_a_spec_that_means_nothing_fixed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        spec(**changes)


def test_a_model_that_lies_on_the_machine_needs_no_revision() -> None:
    assert argv("vllm", model="/models/tiny", revision=None)[:3] == ("serve", "/models/tiny", "--host=127.0.0.1")


def environment(runtime: Runtime, **env: str) -> dict[str, str | Secret]:
    return runtime.env(spec(env=env, hf_token=Secret("hf_abcdefgh")))


def test_the_environment_holds_the_key_the_token_and_the_profiles_own() -> None:
    env = environment(get("vllm"), VLLM_ATTENTION_BACKEND="TRITON_ATTN", DO_NOT_TRACK="0")
    assert env["VLLM_API_KEY"] == Secret(KEY) and env["HF_TOKEN"] == Secret("hf_abcdefgh")
    assert env["VLLM_ATTENTION_BACKEND"] == "TRITON_ATTN" and env["DO_NOT_TRACK"] == "0"
    assert env["VLLM_HOST_IP"] == "127.0.0.1"
    assert "VLLM_API_KEY" not in environment(get("sglang"))


@pytest.mark.parametrize(
    "name",
    ["VLLM_API_KEY", "HF_TOKEN", "PATH", "HOME", "VLLM_HOST_IP", "MY_SECRET", "OPENAI_API_KEY", "AWS_SESSION_TOKEN", "a b", "A;B", "1A"],
)
def test_an_environment_name_that_is_ours_or_a_secret_is_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        environment(get("vllm"), **{name: "x"})


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[2J", "x" * 5000])
def test_an_environment_value_that_is_not_one_line_is_refused(value: str) -> None:
    with pytest.raises(RefusedError):
        environment(get("vllm"), SOME_NAME=value)


@pytest.mark.parametrize(
    ("engine", "version", "flags", "opens"),
    [
        ("vllm", "0.33.0", {}, False),
        ("vllm", "0.27.1", {}, True),
        ("vllm", "0.33.0", {"data_parallel_size": 2}, True),
        ("sglang", "0.5.23", {}, True),
    ],
)
def test_torchs_store_is_expected_only_where_it_is_known(engine: str, version: str, flags: dict[str, Any], opens: bool) -> None:
    runtime = get(engine)
    assert runtime.opens_store(spec(version=version, flags=flags)) is opens


def test_an_unknown_runtime_is_refused_with_those_that_exist() -> None:
    with pytest.raises(RefusedError) as caught:
        get("tgi2")
    assert "vllm, sglang" in caught.value.why
