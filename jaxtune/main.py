"""The command line: `python -m jaxtune.main --config=configs/agnews.py --workdir=runs/agnews`."""

import contextlib
import json

from jaxtune.core.errors import UserError
from jaxtune.run.cli import start_command, token_folder


def main(argv: list[str], prog: str = "python -m jaxtune.main", mode: str | None = None) -> None:
    """Trains; or by `--mode` scores a saved model, looks for a learning rate, or plans a run.

    Args:
      argv: without the program's name. `--config.a.b=value` overrides a field of the config.
      prog: the command as it was typed.
      mode: what it does, where its name says so; None leaves that to `--mode`.

    Raises:
      UserError: bad input.
    """
    # No import at the top that the process which only restarts can do without.
    from jaxtune.run.arguments import run_flags
    from jaxtune.run.config import load_config
    from jaxtune.run.typed import check_target, path_of, read

    flags = run_flags(prog, mode)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, overrides = typed
    check_target(arguments)
    settings = load_config(arguments.config, overrides)
    workdir = path_of(arguments.workdir)
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
    tokens = token_folder(report.line)
    if arguments.mode == "plan":
        from jaxtune.run.forecast import forecast

        forecast(settings, arguments.target, workdir, report, tokens)
        return
    keep_programs(report.line)
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
    if multihost.is_first():
        from jaxtune.reporting.write import try_to_write

        try_to_write(workdir, report)


if __name__ == "__main__":
    start_command(main)
