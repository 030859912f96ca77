"""What a person may type: the flags of `jaxtune COMMAND` and of `python -m jaxtune.main` alike."""

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxtune import __version__
from jaxtune.core.errors import UserError, find_nearest
from jaxtune.run.config_files import named_configs
from jaxtune.run.config_reference import describe
from jaxtune.run.settings_table import settings_table

_PREFIX, _HELP = "--config.", "--help."
_DEFAULT = "%(default)s if not said"


class Flags(NamedTuple):
    """The flags of a command.

    Attributes:
      parser: of all but the overrides of settings.
      required: the flags that must be given, without dashes.
      overrides: whether it takes `--config.SECTION.FIELD=VALUE`.
    """

    parser: argparse.ArgumentParser
    required: tuple[str, ...]
    overrides: bool


def run_flags(prog: str = "python -m jaxtune.main", mode: str | None = None) -> Flags:
    """Of a run: training, scoring a saved model, looking for a learning rate, planning.

    Args:
      prog: the command as it is typed.
      mode: what it does, where its name says so; None leaves that to `--mode`.
    """
    required = ("config", "workdir")
    parser = make_parser(prog, required, ["[--config.FIELD=VALUE ...]"])
    flag = parser.add_argument
    flag("--config", help="a file with get_config(), a config.json, or a name such as agnews")
    flag("--workdir", help="folder of the run; made if absent")
    if mode is None:
        flag("--mode", choices=("train", "eval", "lr_find", "plan"), default="train", help=_DEFAULT)
    else:
        parser.set_defaults(mode=mode, distributed=False, target=None)
    if mode in (None, "plan"):
        flag("--target", help="devices to plan for: h100, h100:8, h100:4x8, v5e:4x4, v5p:2x2x2")
    if mode in (None, "train"):
        flag("--distributed", action="store_true", help="one of several processes")
        flag("--coordinator_address", help="HOST:PORT of process 0, if not detected")
        flag("--num_processes", type=int, help="in all, if not detected")
        flag("--process_id", type=int, help="of this one, from 0, if not detected")
    return Flags(parser, required, overrides=True)


def predict_flags(prog: str = "python -m jaxtune.predict") -> Flags:
    """Of prediction."""
    required = ("model", "input", "output")
    parser = make_parser(prog, required)
    flag = parser.add_argument
    flag("--model", help="a model or adapter folder, or a hub id")
    flag("--input", help="a file of texts, words, questions; a folder of images")
    flag("--output", help=".jsonl or .csv")
    flag("--text_columns", default="", help="NAME or NAME,NAME")
    flag(
        "--columns", help="of the input, that stand in the output: NAME,NAME, or nothing; else all"
    )
    flag("--encoding", default="utf-8", help=f"of the input; {_DEFAULT}")
    flag("--batch_size", type=int, default=64, help=f"examples a step; {_DEFAULT}")
    flag("--max_length", type=int, help="tokens; longer texts are cut")
    flag("--compute_dtype", choices=("float32", "bfloat16"), default="float32", help=_DEFAULT)
    flag("--top_k", type=int, help="classes whose probability is told, the likeliest; else all")
    flag("--head", help="MODULE:FUNCTION, of a model with a head of your own")
    return Flags(parser, required, overrides=False)


def export_flags(prog: str) -> Flags:
    """Of an export."""
    required = ("model", "format", "output")
    parser = make_parser(prog, required)
    flag = parser.add_argument
    flag("--model", help="a model folder, or a hub id")
    flag("--format", choices=("stablehlo", "onnx", "onnx-int8"), help="of the file")
    flag("--output", help="the file; FILE.json beside it says what goes in and comes out")
    flag("--head", help="MODULE:FUNCTION, of a model with a head of your own")
    return Flags(parser, required, overrides=False)


def answer(flags: Flags, argv: Sequence[str]) -> str | None:
    """What `--help`, `--help.SECTION` or `--version` asks for; None where none of them stands.

    Raises:
      UserError: there is no such section.
    """
    for word in argv:
        if word == "--version":
            return f"jaxtune {__version__}"
        if word in ("-h", "--help"):
            settings = [settings_table()] if flags.overrides else []
            return "\n".join([flags.parser.format_help(), *settings])
        if word.startswith(_HELP) and flags.overrides:
            return settings_table(word.removeprefix(_HELP))
    return None


def parse(flags: Flags, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Splits the command line into the command's flags and the overrides by field name.

    Raises:
      UserError: a flag that the command has not, with the nearest it has; or one without its value.
    """
    parser = flags.parser
    rest, overrides = split_fields(argv) if flags.overrides else (argv, {})
    try:
        found, unknown = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise UserError(f"{parser.prog}: {error}.") from None
    if unknown:
        near = _nearest(unknown[0], flags)
        raise UserError(f"{parser.prog} takes no {unknown[0]}.{near or _see(parser)}")
    missing = [f"--{name}" for name in flags.required if getattr(found, name) is None]
    if missing:
        raise UserError(f"{parser.prog} needs {' and '.join(missing)}.{_see(parser)}")
    return found, overrides


def make_parser(
    prog: str, required: Sequence[str], more: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """A parser of `--help` and `--version`, to which a command adds its own flags.

    Args:
      prog: the command as it is typed.
      required: the flags that must be given, without dashes.
      more: what else may stand in a command line; there, `--help.SECTION` is known.
    """
    usage = " ".join([prog, *(f"--{name}=..." for name in required), "[flags]", *more])
    parser = argparse.ArgumentParser(
        prog=prog, usage=usage, add_help=False, allow_abbrev=False, exit_on_error=False
    )
    settings = "; --help.SECTION: the settings of one section" if more else ""
    parser.add_argument("--help", action="store_true", help=f"this list{settings}")
    parser.add_argument("--version", action="store_true", help="of jaxtune")
    return parser


def split_fields(argv: Sequence[str], prefix: str = _PREFIX) -> tuple[list[str], dict[str, str]]:
    """The words without the prefix; the values of those with it, by field name.

    Raises:
      UserError: one without its value.
    """
    rest, overrides = [], {}
    words = iter(argv)
    for word in words:
        if not word.startswith(prefix):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix(prefix).partition("=")
        if not equals:
            value = next(words, None)
            if value is None:
                raise UserError(f"{word} has no value: write {word}=VALUE.")
        overrides[name] = value
    return rest, overrides


def _nearest(word: str, flags: Flags) -> str:
    """The flags, settings and configs whose names are most like a word that is none of them."""
    name, equals, value = word.lstrip("-").partition("=")
    known = {flag: [f"--{flag}"] for flag in re.findall(r"--(\w+)", flags.parser.format_help())}
    if flags.overrides:
        known |= {config: [f"--config={config}"] for config in named_configs()}
        for setting in describe():
            for part in {setting.name, setting.name.rpartition(".")[2]} - {"config"}:
                known.setdefault(part, []).append(f"{_PREFIX}{setting.name}")
    matches = find_nearest(name, known, limit=1)
    found = [f"{flag}{equals}{value}" for match in matches for flag in known[match]]
    return f" Nearest: {', '.join(found)}." if found else ""


def _see(parser: argparse.ArgumentParser) -> str:
    return f" {parser.prog} --help lists what there is."
