"""The words of a profile: which names exist, and how one value becomes the exact thing the core counts with.

Each field type pairs a check with the words for what was expected; `profile.py` turns a failure into a complaint with
file and line. A check raises `Wrong` with those words, and with a hint when a name is nearly right. Decimals are read
from their digits: dollars become micro-dollars, GiB become MiB, never through a float.

GPU and instance names come from the catalogue that ships with the aws provider, read when first asked for; a few GPUs
that EC2 does not rent but a box of one's own may hold are listed here. This file must not know about files or lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

import cost
from provisioner.evals import cases, limits
from provisioner.yamlsafe import shown

RUNTIMES = ("vllm", "sglang")
GUARDS = ("watchdog", "guest-timer", "guest-twin", "guest-lease", "schedule", "fleet")
PURCHASES = ("on-demand", "spot")
VANTAGES = ("host", "tunnel")
REACHES = ("address", "endpoint", "ssm")

# Not on EC2, but in machines that others rent out or that stand under a desk.
_ELSEWHERE = (
    "A10",
    "A16",
    "A2",
    "A30",
    "A40",
    "GB200",
    "GH200",
    "L20",
    "P100",
    "RTX 3090",
    "RTX 4090",
    "RTX 5090",
    "RTX 6000 Ada",
    "RTX A6000",
)

_SECRET_WORD = re.compile(r"(KEY|KEYS|TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)|\w+(KEY|TOKEN|SECRET|PASSWORD)")
_SECRET_VALUE = re.compile(r"(hf_|sk-|ghp_|gho_|glpat-|AKIA|ASIA|xox[bp]-)[\w-]{8,}|-----BEGIN ")
KEEP_OUT = "a profile is kept beside the proof and shown to others; export it in the shell that runs gpulease instead"


class Wrong(ValueError):
    """A value that is not accepted: what was expected, and a hint. The value itself is quoted unless it is a secret."""

    def __init__(self, expected: str, hint: str = "", *, found: str | None = None) -> None:
        super().__init__(expected)
        self.expected, self.hint, self.found = expected, hint, found


def nearest(word: str, known: Iterable[str]) -> str:
    """ "nearest: L40S", or nothing when no known name is near."""
    by_low = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_low, n=1, cutoff=0.5)
    return f"nearest: {by_low[close[0]]}" if close else ""


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Instance type -> its row in the aws provider's catalogue."""
    text = (files("provisioner") / "providers" / "aws_catalog.json").read_text("utf-8")
    return {row["type"]: row for row in json.loads(text)["types"]}


def family(gpu: str) -> str:
    """ "NVIDIA A100 80GB" -> "A100": a profile names the family, and says memory in vram_gib."""
    return re.sub(r"^NVIDIA | \(.*\)$| \d+GB$| Blackwell SE$", "", gpu).strip()


@cache
def gpus() -> dict[str, int]:
    """GPU family -> the most memory a card of it shows, in MiB; 0 when nobody has written it down."""
    known = dict.fromkeys(_ELSEWHERE, 0)
    for row in catalogue().values():
        if row["gpu"]:
            name = family(row["gpu"])
            known[name] = max(known.get(name, 0), row["smiMib"] or 0)
    return known


def eval_sets() -> list[str]:
    """The names of the eval sets that ship with gpulease."""
    return cases.names()


def thresholds() -> list[str]:
    """The figures that may be asked for."""
    return list(limits.THRESHOLDS)


def _one_of(known: Callable[[], Iterable[str]], what: str, *, list_all: bool = True) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        names = {name.lower(): name for name in known()}
        if isinstance(value, str) and value.lower() in names:
            return names[value.lower()]
        near = nearest(value, names.values()) if isinstance(value, str) else ""
        raise Wrong(f"{what} ({', '.join(sorted(names.values()))})" if list_all else what, near)

    return check


def _gpu(value: Any) -> str:
    if isinstance(value, str):
        short = re.sub(r"(?i)^(nvidia )?(geforce |tesla )?", "", value.strip())
        for name in gpus():
            if name.lower() == short.lower():
                return name
        begins = [name for name in gpus() if re.match(re.escape(name) + r"\b", short, re.IGNORECASE)]
        near = f"nearest: {max(begins, key=len)}" if begins else nearest(short, gpus())
        raise Wrong("a GPU model such as L4 or H100 (its memory goes into vram_gib)", near)
    raise Wrong("a GPU model such as L4 or H100")


def _matching(pattern: str, expected: str, *, numbers: bool = False) -> Callable[[Any], str]:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any) -> str:
        if numbers and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and compiled.fullmatch(value):
            return value
        raise Wrong(expected)

    return check


def _dollars(value: Any) -> int:
    expected = 'an amount in US dollars above 0 with at most six decimals, like "1.00"'
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Wrong(expected)
    try:
        micro = cost.parse(str(value))
    except cost.MoneyError:
        raise Wrong(expected) from None
    if micro <= 0:
        raise Wrong(expected)
    return micro


def _gib(value: Any) -> int:
    if isinstance(value, str | int) and not isinstance(value, bool) and re.fullmatch(r"\d{1,4}(\.\d{1,6})?", str(value), re.ASCII):
        # A part of a MiB counts as a whole one: this is a minimum.
        return int((Decimal(str(value)) * 1024).to_integral_value(ROUND_CEILING))
    raise Wrong("GiB per GPU, 0 to 9999, like 20 or 22.5")


def _decimal(low: str, high: str, expected: str) -> Callable[[Any], str]:
    """Exact text between two bounds, normalised, for what the load client reads as a decimal."""

    def check(value: Any) -> str:
        if isinstance(value, str | int) and not isinstance(value, bool) and re.fullmatch(r"\d{1,9}(\.\d{1,6})?", str(value), re.ASCII):
            number = Decimal(str(value))
            if Decimal(low) <= number <= Decimal(high):
                return format(number.normalize(), "f")
        raise Wrong(expected)

    return check


def _model_id(value: Any) -> str:
    if isinstance(value, str):
        if value.startswith("/"):
            if re.fullmatch(r"(/[\w.+-]+)+", value, re.ASCII) and ".." not in value.split("/") and len(value) <= 250:
                return value
            raise Wrong("an absolute path made of letters, digits and . _ + -, without ..")
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", value, re.ASCII) and len(value) <= 96:
            return value
        if "://" in value or value.count("/") > 1:
            raise Wrong(
                "owner/name as the hub writes it, like Qwen/Qwen3-0.6B, or an absolute path on the machine",
                "leave out the address around it",
            )
    raise Wrong("owner/name as the hub writes it, like Qwen/Qwen3-0.6B, or an absolute path on the machine")


def _revision(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}", value):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{7,39}|[0-9a-fA-F]{40}", value):
        raise Wrong("a commit of 40 lower-case hex digits", f"this has {len(value)}; the model's page on the hub shows the whole commit")
    raise Wrong(
        "a commit of 40 hex digits", "a branch such as main can change between two runs; the model's page on the hub shows its commit"
    )


def _command(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"(/[\w.+-]+)+", value, re.ASCII) and ".." not in value.split("/"):
        return value
    raise Wrong(
        "the absolute path of an executable on the machine, like /opt/vllm/bin/vllm", "arguments go into flags" if " " in str(value) else ""
    )


def _flag_name(value: Any) -> str:
    text = str(value)
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,79}", text):
        fixed = text.strip("-").replace("_", "-").lower()
        near = f"nearest: {fixed}" if re.fullmatch(r"[a-z][a-z0-9-]*", fixed) else ""
        raise Wrong("a flag without its leading dashes, in small letters, like max-model-len", near)
    if {"key", "token", "secret", "password"} & set(text.split("-")):
        raise Wrong("no secrets", KEEP_OUT)
    return text


def _flag_value(value: Any) -> Any:
    """What the runtime's own table judges later; here only what no flag may be."""
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
    if any(isinstance(part, str) and _SECRET_VALUE.match(part) for part in parts):
        raise Wrong("no secrets", KEEP_OUT, found="what looks like a secret")
    if all(isinstance(part, str | int | None) and len(str(part)) <= 500 and str(part).isprintable() for part in parts):
        return value
    raise Wrong("text, a number, true or false, a list, or a mapping")


def _env_name(value: Any) -> str:
    text = str(value)
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,79}", text):
        raise Wrong("a name of capitals, digits and _, like VLLM_LOGGING_LEVEL")
    if any(_SECRET_WORD.fullmatch(part) for part in text.split("_")):
        raise Wrong("no secrets", KEEP_OUT)
    return text


def _env_value(value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) <= 500 and str(value).isprintable():
        if _SECRET_VALUE.match(str(value)):
            raise Wrong("no secrets", KEEP_OUT, found="what looks like a secret")
        return str(value)
    raise Wrong("one line of text, or a number" + (f' (in quotes: "{shown(value)}")' if isinstance(value, bool) else ""))


def _eval_set(value: Any) -> str:
    if isinstance(value, str) and (value in eval_sets() or ("/" in value and value.endswith(".jsonl"))):
        return value
    expected = f"an eval set ({', '.join(eval_sets())}) or the path of a .jsonl file, like ./cases.jsonl"
    raise Wrong(expected, nearest(value, eval_sets()) if isinstance(value, str) else "")


def _limit(value: Any) -> int | str:
    """A whole number as int, a fraction as its exact text."""
    text = _decimal("0", "3600000", "a number from 0 to 3600000, like 50 or 99.5")(value)
    return int(text) if text.isdigit() else text


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    twice = sorted({value for value in values if list(values).count(value) > 1})
    if twice:
        raise Wrong("each name once", found=f"{', '.join(twice)} twice")
    return tuple(values)


def _text(pattern: str, expected: str, *, numbers: bool = False) -> Any:
    return Annotated[str, BeforeValidator(_matching(pattern, expected, numbers=numbers)), Field(pattern=f"^({pattern})$")]


def _aws_id(prefix: str, what: str) -> Any:
    """An id of EC2's: its prefix and 8 or 17 hex digits."""
    return _text(rf"{prefix}-([0-9a-f]{{8}}|[0-9a-f]{{17}})", f"the id of {what}, like {prefix}-0123456789abcdef0")


Name = _text(r"[a-z0-9][a-z0-9-]{0,39}", "a name of small letters, digits and -, at most 40 characters")
About = _text(r"[^\x00-\x1f\x7f-\x9f]{1,200}", "one line of text, at most 200 characters")
Gpu = Annotated[str, PlainValidator(_gpu), WithJsonSchema({"type": "string"})]
Gib = Annotated[int, PlainValidator(_gib), WithJsonSchema({"type": ["number", "string"], "minimum": 0})]
Driver = _text(r"\d{3}(\.\d{1,3}){0,2}", 'a driver version, like "570" or "570.86"', numbers=True)
Region = _text(r"[a-z]{2}(-[a-z]+){1,3}-\d", "a region, like us-east-1")
InstanceType = Annotated[
    str,
    PlainValidator(_one_of(lambda: catalogue(), "an instance type with a known price", list_all=False)),
    WithJsonSchema({"type": "string"}),
]
Names = AfterValidator(_distinct)
ModelId = Annotated[str, PlainValidator(_model_id), WithJsonSchema({"type": "string"})]
Revision = Annotated[str, PlainValidator(_revision), WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{40}$"})]
Served = _text(r"[A-Za-z0-9][\w./:-]{0,95}", "a name of letters, digits and . _ / : -")
RuntimeName = Annotated[str, PlainValidator(_one_of(lambda: RUNTIMES, "a runtime")), WithJsonSchema({"enum": list(RUNTIMES)})]
Version = _text(r"\d{1,4}(\.\d{1,4}){1,3}([a-z]+\d{1,4})?(\+[a-z0-9.]{1,20})?", 'a version, like "0.33.0"')
FlagName = Annotated[str, PlainValidator(_flag_name), WithJsonSchema({"type": "string"})]
FlagValue = Annotated[Any, PlainValidator(_flag_value), WithJsonSchema({})]
EnvName = Annotated[str, PlainValidator(_env_name), WithJsonSchema({"type": "string"})]
EnvValue = Annotated[str, PlainValidator(_env_value), WithJsonSchema({"type": ["string", "number"]})]
Command = Annotated[str, PlainValidator(_command), WithJsonSchema({"type": "string", "pattern": "^/"})]
EvalSet = Annotated[str, PlainValidator(_eval_set), WithJsonSchema({"type": "string"})]
Temperature = Annotated[str, PlainValidator(_decimal("0", "2", "a number from 0 to 2")), WithJsonSchema({"type": ["number", "string"]})]
Rate = Annotated[
    str,
    PlainValidator(_decimal("0.001", "10000", "requests per second, 0.001 to 10000, or nothing for a closed loop")),
    WithJsonSchema({"type": ["number", "string"]}),
]
Purchase = Annotated[str, PlainValidator(_one_of(lambda: PURCHASES, "a way to buy")), WithJsonSchema({"enum": list(PURCHASES)})]
ImageId = _aws_id("ami", "an image")
GroupId = _aws_id("sg", "a security group")
SubnetId = _aws_id("subnet", "a subnet")
Reach = Annotated[str, PlainValidator(_one_of(lambda: REACHES, "a way in")), WithJsonSchema({"enum": list(REACHES)})]
Vantage = Annotated[str, PlainValidator(_one_of(lambda: VANTAGES, "a vantage")), WithJsonSchema({"enum": list(VANTAGES)})]
ThresholdName = Annotated[str, PlainValidator(_one_of(thresholds, "a threshold")), WithJsonSchema({"type": "string"})]
Limit = Annotated[int | str, PlainValidator(_limit), WithJsonSchema({"type": ["number", "string"], "minimum": 0})]
Guard = Annotated[str, PlainValidator(_one_of(lambda: GUARDS, "a guard")), WithJsonSchema({"enum": list(GUARDS)})]
Dollars = Annotated[int, PlainValidator(_dollars), WithJsonSchema({"type": ["string", "number"]})]
