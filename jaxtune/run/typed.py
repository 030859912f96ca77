"""What every command does with what was typed, before anything heavy is imported."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from jaxtune.core.errors import UserError, nearest
from jaxtune.run.arguments import Flags, answer, parse


def read(flags: Flags, argv: Sequence[str]) -> tuple[Namespace, dict[str, str]] | None:
    """The command's flags, and the overrides by field name; None where all is said already.

    `--help`, `--help.SECTION` and `--version` are answered here.

    Args:
      flags: of the command.
      argv: without the program's name.

    Raises:
      UserError: as `arguments.parse` and `arguments.answer`.
    """
    told = answer(flags, argv)
    if told is None:
        return parse(flags, argv)
    print(told)
    return None


def check_least(arguments: Namespace, **least: float) -> None:
    """Refuses numbers below the least that a flag may be; one that is not set is None.

    Raises:
      UserError: names the first flag.
    """
    for name, limit in least.items():
        value = getattr(arguments, name)
        if value is not None and not value >= limit:  # NaN neither
            raise UserError(f"--{name}={value}: expected at least {limit}.")


def check_target(arguments: Namespace) -> None:
    """Refuses a plan for no devices, and devices of other modes, which run on those that are here.

    Raises:
      UserError: names the flag.
    """
    if arguments.mode == "plan" and arguments.target is None:
        raise UserError("--mode=plan needs --target=, such as h100:8 or v5e:4x4.")
    if arguments.mode != "plan" and arguments.target is not None:
        raise UserError(f"--mode={arguments.mode} takes no --target: drop it, or set --mode=plan.")


def path_of(text: str) -> Path:
    """A path as typed; no shell expands `--workdir=~/runs`."""
    return Path(os.path.expanduser(text))


def output_of(text: str, endings: Sequence[str] = (), flag: str = "output") -> Path:
    """A file to write.

    Args:
      text: as typed.
      endings: that its name may have; () for any.
      flag: that it was typed for.

    Raises:
      UserError: another ending, or a place that no file can have.
    """
    output = path_of(text)
    if endings and output.suffix not in endings:
        expected = " or ".join(endings)
        raise UserError(f"--{flag}={output}: expected a name that ends in {expected}.")
    if output.is_dir() or (output.parent.exists() and not output.parent.is_dir()):
        raise UserError(f"--{flag}={output}: expected a file in a folder, which is made if absent.")
    return output


def input_of(text: str) -> Path:
    """A file or folder to read.

    Raises:
      UserError: there is none; names the nearest beside it.
    """
    source = path_of(text)
    if not source.exists():
        siblings = [p.name for p in source.parent.iterdir()] if source.parent.is_dir() else []
        raise UserError(f"--input={source}: there is no such file.{nearest(source.name, siblings)}")
    return source
