"""Where the program meets its terminal: what is printed, what is asked, and how an ending becomes words and a number.

stdout is the answer, stderr is the story. With `--json` every ending prints exactly one document, also a command line
that cannot be understood, a signal, and a bug of ours. Nothing that goes wrong while printing may change the exit
code: it may be about money.

Until something was asked for, a signal raises `Stopped` and ends the program at once: there is nothing to let go of.
From then on signals belong to the run's scope (see `scope.signals`) and never raise. `Stopped` is no `Exception`, so
that no code which goes on after errors can swallow it. Must not know any command.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from provisioner.errors import Exit, GpuleaseError, UsageError

NOTHING_YET = "nothing was rented, nothing was spent"
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# typer keeps click to itself; of what it shows, this is the base of everything that is wrong with a command line.
CommandLineError: Any = typer.BadParameter.__base__


class Stopped(KeyboardInterrupt):
    """A signal came before anything was asked for. `code` is what the shell gives a program that it ended."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class _Left(SystemExit):
    """Stopped, and told so: nothing is left to do but to end."""

    code: int


def begin(app: typer.Typer, words: Sequence[str]) -> NoReturn:
    """Run the command line to its end. Never returns; the exit code is the last word."""
    _stand()
    as_json = "--json" in words
    try:
        code = app(list(words), prog_name="gpulease", standalone_mode=False)
    except _Left as e:
        # Python would wait for every thread that still has a question open, for minutes where a cloud does not answer.
        os._exit(e.code)
    except CommandLineError as e:
        command = e.ctx.command_path if e.ctx else "gpulease"
        # `verify` has a meaning of its own for 2: intact, and the tier not reached.
        code = 3 if command.endswith(" verify") else int(Exit.USAGE)
        refused = UsageError(e.format_message(), why="the command line cannot be understood", next=f"{command} --help")
        with contextlib.suppress(SystemExit):  # it is told; the code is below
            if type(e).__name__ == "NoArgsIsHelpError":
                e.show(file=sys.stderr)  # a group without a command: its help, and nothing is wrong
            else:
                _end(refused, "", code, as_json)
    except KeyboardInterrupt as e:
        code = getattr(e, "code", int(Exit.SIGINT))
    except OSError:
        code = int(Exit.FAILED)  # help or a version that nobody could read
        _unread(sys.stdout)
    sys.exit(code)


@contextmanager
def ending(as_json: bool, now: str = "", *, usage: int = Exit.USAGE, speaks_of_money: bool = False) -> Iterator[None]:
    """The one place where an error becomes words and a number.

    `now` is what it costs when a command ends in an error here; where it is empty, the journals here are asked. NOTHING_YET also makes
    every error a refusal: nothing had been created. Where the command `speaks_of_money`, whatever kept it from seeing means unproven.
    """

    def code_of(e: GpuleaseError) -> int:
        if isinstance(e, UsageError):
            return int(usage)
        if e.code is not Exit.FAILED:
            return int(e.code)
        return int(Exit.REFUSED if now == NOTHING_YET else Exit.UNPROVEN if speaks_of_money else Exit.FAILED)

    try:
        with _listening():
            try:
                yield
            except GpuleaseError as e:
                _end(e, now, code_of(e), as_json)
            except KeyboardInterrupt as e:
                stopped = GpuleaseError(f"stopped: {e or 'SIGINT'}", why="nothing had been asked for", next="the same command again")
                code = getattr(e, "code", int(Exit.SIGINT))
                try:
                    _end(stopped, now, code, as_json, "Stopped")
                except SystemExit:
                    raise _Left(code) from None
            except OSError as e:
                where = f": {e.filename}" if e.filename else ""
                trouble = GpuleaseError(
                    f"this machine would not: {e.strerror or e}{where}",
                    why="a file or a connection of this machine, not the provider",
                    next="gpulease doctor",
                )
                _end(trouble, now, code_of(trouble), as_json, type(e).__name__)
            except Exception as e:
                # A bug of ours: the program ends here.
                _end(bug(e), now, int(Exit.BUG), as_json, type(e).__name__)
    except Stopped as e:
        raise _Left(e.code) from None  # it came in the instant before


def bug(e: BaseException) -> GpuleaseError:
    """An exception that nobody foresaw, as an error with the lines that are needed to find it."""
    lines = "".join(traceback.format_exception(e))
    return GpuleaseError(f"a bug in gpulease: {type(e).__name__}: {e}", why=lines, next="report it with the lines above")


def leave(code: int, answer: dict[str, Any] | str) -> NoReturn:
    """Print the answer and end."""
    _settle(code)
    show(answer)
    sys.exit(code)


def show(answer: dict[str, Any] | str) -> None:
    """Print the answer, whatever stdout is: closed, full, a reader who has gone (| head), one that knows only ASCII."""
    try:
        # ASCII in JSON: what a machine or a model said holds no byte that a terminal would act on, and half characters pass.
        print(_folded(answer, sys.stdout) if isinstance(answer, str) else json.dumps(answer, indent=2), flush=True)
    except (OSError, ValueError):
        _unread(sys.stdout)


def complain(text: str, end: str = "\n") -> None:
    """To stderr, if anybody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(_folded(text, sys.stderr), end=end, file=sys.stderr, flush=True)


def _folded(text: str, stream: Any) -> str:
    if not stream.isatty():
        return text
    from provisioner.render import folded

    return folded(text, os.get_terminal_size(stream.fileno()).columns or None)


def askable(why: str = "a run is confirmed once before it starts") -> None:
    """Refuse, before anything is looked up, where nobody could see the question or answer it."""
    for stream, what in ((sys.stdin, "to ask on"), (sys.stderr, "to show the question on")):
        if not stream.isatty():
            raise UsageError(f"there is no terminal {what}", why=why, next="add --yes")


def typed(question: str) -> str:
    """What somebody typed on the terminal; nothing when the input ended."""
    askable()
    complain(question, end="")
    try:
        return _line()
    except EOFError:
        complain("")
        return ""


def confirm(question: str) -> bool:
    """Ask on the terminal. No answer is a no."""
    askable()
    complain(question, end="")
    try:
        return _line().strip().lower() in ("y", "yes")
    except EOFError:
        complain("")
        return False
    except KeyboardInterrupt:
        complain("")
        raise


def _line() -> str:
    # Not `input` alone: a signal that comes in the instant before its read would only be heard with the next key.
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    return input()


def _end(e: GpuleaseError, now: str, code: int, as_json: bool, name: str = "") -> NoReturn:
    _settle(code)
    if not now:
        from provisioner.doctor import costs_now

        now = costs_now() + ("; what the provider has was not seen" if code == Exit.UNPROVEN else "")
    if as_json:
        leave(code, _record(e, now, code, name))
    from provisioner.render import error_text

    complain(error_text(e, now))
    sys.exit(code)


def _record(e: GpuleaseError, now: str, code: int, name: str = "") -> dict[str, Any]:
    from provisioner.render import error_record

    return {**error_record(e, now), **({"error": name} if name else {}), "exit": code}


@contextmanager
def _listening() -> Iterator[None]:
    """Signals raise `Stopped` here; a SIGHUP that whoever started us had ignored (`nohup`) stays so."""

    def hear(number: int, _frame: object) -> None:
        raise Stopped(number)

    old = {number: signal.getsignal(number) for number in HEARD}
    for number in HEARD:
        if number != signal.SIGHUP or old[number] is not signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _settle(code: int) -> None:
    """The code is known and may be about money: from here on a signal ends the printing, and does not change it."""
    for number in HEARD:
        signal.signal(number, lambda *_: os._exit(code))


def _stand() -> None:
    """Three open streams that can hold any text. A closed one would be the next file we open: the journal, for instance."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread(stream: Any) -> None:
    """Nobody reads it any more: let what is left in its buffer go nowhere, or Python would fail on it at the very end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
