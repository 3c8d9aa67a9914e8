"""Pastes into docs/*.md what the code says of itself: help texts, tables of keys, codes and numbers.

    python tools/docs.py            says which pages are not current, and exits 1 if any is
    python tools/docs.py --write    brings them up to date

A pasted part stands between `<!-- docs: NAME WORDS -->` and `<!-- docs: end -->`; NAME is a function below, WORDS its
arguments. Everything outside such parts is written by hand. `tests/docs` fails when a page is not current, so what a
page says of an option, a key, a code or a waiting time cannot drift from the code.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- docs: (?!end)(?P<words>[^>]+?) -->\n).*?(<!-- docs: end -->)", re.DOTALL)
WIDTH = 100


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def current(text: str) -> str:
    """The page with every pasted part made anew."""

    def part(found: re.Match[str]) -> str:
        name, *words = found["words"].split()
        return found[1] + PARTS[name](*words).rstrip("\n") + "\n" + found[3]

    return PART.sub(part, text)


def main(argv: Sequence[str]) -> int:
    stale = [page for page in pages() if current(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        if "--write" in argv:
            page.write_text(current(page.read_text("utf-8")), "utf-8")
        print(f"{page.relative_to(ROOT)}: {'written' if '--write' in argv else 'not current; python tools/docs.py --write'}")
    return int(bool(stale) and "--write" not in argv)


def help_of(*command: str) -> str:
    """The help of a command, as it is shown in a window of 100 columns."""
    from typer.testing import CliRunner

    from provisioner.cli import app

    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="gpulease", terminal_width=WIDTH, color=False)
    if shown.exit_code != 0:
        raise SystemExit(f"gpulease {' '.join(command)} --help: {shown.output}")
    return "```text\n" + "\n".join(line.rstrip() for line in shown.output.strip().splitlines()) + "\n```"


def profile_keys() -> str:
    from pydantic_core import PydanticUndefined

    from provisioner import profile_sections as profile

    rows: list[Sequence[str]] = []

    def walk(section: type[Any], before: str) -> None:
        for name, field in section.model_fields.items():
            inner = field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, profile.Section) else None
            must = field.is_required() if inner is None else field.default is PydanticUndefined and field.default_factory is None
            rows.append([f"`{before}{name}`", "required" if must else _default(field, inner), str(field.description)])
            if inner is not None:
                walk(inner, f"{before}{name}.")

    walk(profile.Written, "")
    return table(["key", "when left out", "what it is"], rows)


def _default(field: Any, inner: object) -> str:
    if inner is not None:
        return "all defaults"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "nothing" if value in (None, "", [], {}) else f"`{json.dumps(value).strip(chr(34))}`"


def thresholds() -> str:
    from provisioner.evals.limits import THRESHOLDS

    rows = [
        [f"`{name}`", "at least" if rule.at_least else "at most", "every vantage, the worst counts" if rule.everywhere else "the host's"]
        for name, rule in THRESHOLDS.items()
    ]
    return table(["threshold", "limit", "judged at"], rows)


def limits() -> str:
    from provisioner.evidence.limits import LIMITS

    return table(["code", "not shown", "in full"], [[f"`{code}`", few, sentence] for code, (few, sentence) in LIMITS.items()])


def messages() -> str:
    from provisioner.evidence.messages import TEMPLATES, UNREADABLE, UNTRUSTED

    def exit_of(code: str) -> str:
        return "" if code[0] == "W" else "3" if code in UNREADABLE else "2" if code in UNTRUSTED else "1"

    return table(["code", "exit", "message"], [[code, exit_of(code), text] for code, text in TEMPLATES.items()])


def numbers() -> str:
    """The waiting times that the guarantee is made of."""
    import cost
    from provisioner import closing, guards, lease, reap, run, watchdog
    from provisioner.providers import aws, static

    rows: list[Sequence[str]] = [
        ["the run stops itself, before the deadline", f"{run.TEARDOWN_S:.0f} s, or a twentieth of the time limit if that is less"],
        ["the machine's own timer and its twin fire", "at the deadline"],
        ["the watchdog kills a run that is still there, after the deadline", f"{guards.GRACE_S} s"],
        ["the same for a run that is letting go already", f"{watchdog.LETTING_GO_S:.0f} s"],
        ["`reap` calls a lease overdue, after the deadline", f"{reap.OVERDUE_S} s"],
        ["the machine is told that we are still here, every", f"{guards.RENEW_EVERY_S:.0f} s"],
        ["the machine powers itself off after silence of", f"{guards.SILENCE_S} s"],
        ["two empty looks lie apart at least, on EC2", f"{aws.AwsProvider('us-east-1').traits.second_look_s:.0f} s"],
        ["settle time after a lost answer, on EC2", f"{aws.SETTLE_S:.0f} s"],
        ["the same in the rehearsal", f"{aws.REHEARSED_SETTLE_S:.0f} s"],
        ["the same on a host of your own", f"{static.StaticProvider.traits.settle_s:.0f} s"],
        ["run and `release` go on looking", f"{lease.PATIENCE_S:.0f} s"],
        ["and so much longer, where all that is left is leaving and bills no more", f"{lease.LINGER_S:.0f} s"],
        ["a right that is refused, about what costs nothing, is asked again for", f"{lease.DENIED_S:.0f} s"],
        [
            "the watchdog goes on looking",
            f"{watchdog.PATIENCE_S / 3600:.0f} h; after an error of its own again every {watchdog.AGAIN_S:.0f} s",
        ],
        ["a simulated cloud is looked for, at most", f"{closing.SIMULATED_PATIENCE_S:.0f} s"],
        ['the guard tail that "at most" pays for, after the deadline', f"{cost.GUARD_TAIL_SECONDS} s"],
    ]
    return table(["what", "how long"], rows)


def aws_actions() -> str:
    """Every action in the policies, from the one list of them. A test holds that list to the calls in the source."""
    from provisioner.providers.aws_actions import ACTIONS

    rows = [[f"`{a.name}`", ", ".join(a.policies), a.why, a.without or "needed"] for a in sorted(ACTIONS, key=lambda a: a.name)]
    return table(["action", "policy", "why", "without it"], rows)


def aws_policy(name: str) -> str:
    import json

    from provisioner.providers.aws_policy import document

    return "```json\n" + json.dumps(document(name), indent=2) + "\n```"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PARTS: dict[str, Callable[..., str]] = {
    "help": help_of,
    "profile-keys": profile_keys,
    "thresholds": thresholds,
    "limits": limits,
    "messages": messages,
    "numbers": numbers,
    "aws-actions": aws_actions,
    "aws-policy": aws_policy,
}

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
