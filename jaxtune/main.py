"""The command line: `python -m jaxtune.main --config=configs/agnews.py --workdir=runs/agnews`."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.run.cli import run_command, token_folder
from jaxtune.run.config import load_config
from jaxtune.run.huge_pages import restart_with_huge_pages

_PREFIX = "--config."


def main(argv: list[str]) -> None:
    """Trains; `--mode=eval` scores a saved model, `--mode=lr_find` looks for a learning rate.

    Args:
      argv: without the program's name. `--config.a.b=value` overrides a field of the config.

    Raises:
      UserError: bad input.
    """
    arguments, overrides = parse(argv)
    settings = load_config(arguments.config, overrides)
    workdir = Path(os.path.expanduser(arguments.workdir))  # no shell expands --workdir=~/runs
    # The heavy imports wait until the config has been found good.
    from jaxtune.parallel import multihost
    from jaxtune.run.console import Report
    from jaxtune.training.program_cache import keep_programs

    report = Report()
    if arguments.distributed:
        if arguments.mode != "train":
            raise UserError(f"--mode={arguments.mode} runs in one process: drop --distributed.")
        multihost.join(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
        report = Report(quiet=not multihost.is_first())
    keep_programs(report.line)
    tokens = token_folder(report.line)
    if arguments.mode == "eval":
        from jaxtune.run.scoring import score

        scores = score(settings, workdir, report, tokens)
        report.line(json.dumps(scores))
        return
    if arguments.mode == "lr_find":
        from jaxtune.run.lr_find import lr_find

        lr_find(settings, workdir, report, tokens)
        return
    from jaxtune.run.signals import InterruptedRunError
    from jaxtune.run.train import train

    with multihost.together() if arguments.distributed else contextlib.nullcontext():
        try:
            train(settings, workdir, report, tokens)
        except InterruptedRunError as stop:
            report.line(str(stop))
            raise SystemExit(128 + stop.signum) from None


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Splits the command line into its own flags and the overrides by field name."""
    parser = argparse.ArgumentParser(prog="python -m jaxtune.main", allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, help="a file with get_config(), or a config.json"
    )
    parser.add_argument("--workdir", required=True, help="folder of the run; made if absent")
    parser.add_argument("--mode", choices=("train", "eval", "lr_find"), default="train")
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    parser.add_argument("--coordinator_address", help="HOST:PORT of process 0, if not detected")
    parser.add_argument("--num_processes", type=int, help="in all, if not detected")
    parser.add_argument("--process_id", type=int, help="of this one, from 0, if not detected")
    rest, overrides = [], {}
    words = iter(argv)
    for word in words:
        if not word.startswith(_PREFIX):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix(_PREFIX).partition("=")
        if not equals:
            value = next(words, None)
            if value is None:
                raise UserError(f"{word} has no value: write {word}=VALUE.")
        overrides[name] = value
    return parser.parse_args(rest), overrides


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(run_command(main, sys.argv[1:]))
