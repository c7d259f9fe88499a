"""The command line: parse the arguments and run the command. An error is shown as one message."""

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from blendtitan import commands
from blendtitan.errors import BlendTitanError
from blendtitan.failures import MAX_LINES, report
from blendtitan.terminal import complain, say
from blendtitan.visible import spell_out_logs, visible_lines

_SHOWN = (
    *("init", "prepare", "train"),
    *("tokenize", "stats", "verify", "repair", "merge", "index", "convert", "mix"),
    *("plan", "explain", "find", "report", "removed", "audit", "sweep", "rescue", "export", "demo"),
)
COMMANDS = {name: commands.COMMANDS[name] for name in _SHOWN}
"""All commands, in the order of the help."""

FIRST = {"init", "prepare", "train"}
"""Commands of newcomers. A long error is shortened, and a file has all of it."""

_TAKING_KEYS = ("train", "plan")

_EXAMPLE = ": --training.steps 100"

_RESUMES = ("resume", "continue", "restart")

_KEEPING = ("prepare", "tokenize")
"""Commands that do not repeat finished work."""

PRINTING = {"stats", "plan", "explain", "removed", "audit"}
"""Commands that only print, and may end when their output is closed, as with ``| head``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 after an error, 2 for wrong arguments."""
    options = parsed(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    spell_out_logs()
    try:
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except BrokenPipeError as error:
        if options.command not in PRINTING:
            return _report_failure(options.command, error)
        # The output was closed. Writing the rest would fail in the same way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as rich does for tables
    except (BlendTitanError, OSError) as error:
        return _report_failure(options.command, error)
    except KeyboardInterrupt:
        resumes = ". The same command resumes from there." if options.command in _KEEPING else ""
        complain(f"blendtitan {options.command}: interrupted{resumes}")
        return 130
    except Exception as error:
        complain(*report(error, f"blendtitan {options.command}: internal error, please report it"))
        return 1
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command. ``train`` and ``plan`` also have ``overrides``, keys of a run."""
    words = sys.argv[1:] if arguments is None else arguments
    whole = parser()
    if not words:
        complain(*whole.format_help().splitlines())
        sys.exit(2)
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        if words[0] in _RESUMES:
            whole.error(f"unknown command {words[0]!r}. A run resumes with: blendtitan train RUN")
        expected = _nearest(words[0], COMMANDS) or f", expected one of {', '.join(COMMANDS)}"
        whole.error(f"unknown command {words[0]!r}{expected}")
    options, unknown = whole.parse_known_args(words)
    overrides = unknown if options.command in _TAKING_KEYS else []
    wrong = [word for word in unknown if re.match(r"-(?!\d)", word) and "." not in word]
    if wrong or (unknown and not overrides):
        options.parser.error(_unrecognized(options, wrong or unknown))
    options.overrides = overrides
    return options


def _unrecognized(options: argparse.Namespace, words: Sequence[str]) -> str:
    word = words[0].partition("=")[0]
    if word.startswith("--") and "." in word:
        section, _, key = word.removeprefix("--").rpartition(".")
        nearest = (
            f". {options.command} takes no keys. Set {key} in [{section}] of the run's TOML file"
        )
        return f"unrecognized arguments: {' '.join(words)}{nearest}"
    nearest = _nearest(word, _options(options.parser))
    if not nearest and options.command in _TAKING_KEYS:
        from blendtitan.settings.known_keys import KEYS
        from blendtitan.settings.suggestions import meaning

        advice = (meaning(word.removeprefix("--"), KEYS) or "").replace("mean ", "mean --")
        nearest = ". A key of the run has its section" + (f". {advice}" if advice else _EXAMPLE)
    return f"unrecognized arguments: {' '.join(words)}{nearest}"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return re.findall(r"--[\w-]+", parser.format_usage())


def _nearest(word: str, known: Iterable[str]) -> str:
    from blendtitan.settings.suggestions import did_you_mean

    advice = did_you_mean(word, known)
    return f".{advice}" if advice else ""


def _report_failure(command: str, error: Exception) -> int:
    notes = getattr(error, "__notes__", ())
    message = _explained(error) if isinstance(error, OSError) else error
    texts = (f"blendtitan {command}: {message}", *notes)
    lines = [line for text in texts for line in _lines(text)]
    if command in FIRST and len(lines) > MAX_LINES:
        lines = report(error, f"blendtitan {command}")
    complain(*lines)
    return 1


def _lines(text: str) -> Sequence[str]:
    return visible_lines(text).splitlines()


_ELSEWHERE = "choose another folder."
_REMEDIES = {
    errno.ENOENT: f"Check the path, or, for an output, {_ELSEWHERE}",
    errno.EEXIST: f"Move away the file or folder of this name, or {_ELSEWHERE}",
    errno.ENOTDIR: f"A file is where a folder is expected: move it away, or {_ELSEWHERE}",
    errno.EISDIR: "A folder is where a file is expected: name a file.",
    errno.EACCES: f"Change the permissions of the file or of the folders above it, or {_ELSEWHERE}",
    errno.EROFS: f"Files cannot be changed there: {_ELSEWHERE}",
    errno.ENOSPC: f"Free some space, and run again, or {_ELSEWHERE}",
    errno.EDQUOT: f"Free some space, and run again, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit of open files, as with `ulimit -n 4096`, and run again.",
    errno.EIO: "Check the disk or the connection to it, and run again.",
}
_REMEDIES[errno.EPERM] = _REMEDIES[errno.EACCES]


def _explained(error: OSError) -> str:
    """The file, the system's reason, and a remedy."""
    if error.errno is None:
        return str(error)
    name = error.filename2 or error.filename
    where = "" if name is None else f"{os.fsdecode(name)}: "
    return f"{where}{error.strerror}. {_REMEDIES.get(error.errno, '')}".rstrip()


class _Parser(argparse.ArgumentParser):
    """Shows unknown arguments in a form that is safe to print, and reads a manual when asked."""

    _words: Sequence[str] = ()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        self._words = args or ()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            # One of them may be there, but misspelt.
            given = [word.partition("=")[0] for word in self._words if word.startswith("--")]
            known = _options(self)
            unknown = [g for g in given if "." not in g and not any(k.startswith(g) for k in known)]
            if unknown:
                message = f"unrecognized arguments: {unknown[0]}{_nearest(unknown[0], known)}"
        super().error(visible_lines(message))

    def format_help(self) -> str:
        if (command := COMMANDS.get(self.prog.rpartition(" ")[2])) is not None:
            self.description, self.epilog = command.texts()
        return super().format_help()


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        say(f"blendtitan {version('blendtitan')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line. Parsed options have ``command`` and its own ``parser``."""
    whole = _Parser(
        prog="blendtitan",
        description="Prepare data, train on a blend of corpora, and inspect runs.",
        epilog="Each command has a manual: blendtitan COMMAND --help",
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        added = subparsers.add_parser(
            name,
            help=command.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for add in command.arguments:
            add(added)
        added.set_defaults(parser=added)
    return whole


if __name__ == "__main__":
    sys.exit(main())
