"""`jaxtune sweep --config=... --workdir=... --trials=N`: looks for the best settings."""

import os
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.run.cli import start_command, token_folder

_SPECS = "--sweep."


def main(argv: list[str], prog: str = "python -m jaxtune.commands.sweep") -> None:
    """Trains with settings that Optuna chooses, and tells the best.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input.
    """
    from jaxtune.run.arguments import Flags, answer, make_parser, parse, split_fields
    from jaxtune.run.config import load_config

    required = ("config", "workdir", "trials")
    more = ["[--sweep.FIELD=LOW..HIGH ...]", "[--config.FIELD=VALUE ...]"]
    parser = make_parser(prog, required, more)
    flag = parser.add_argument
    flag("--config", help="a file with get_config(), a config.json, or a name such as agnews")
    flag("--workdir", help="folder of the sweep; made if absent")
    flag("--trials", type=int, help="how many; more of them go on with a sweep that has ended")
    flag("--seeds", type=int, default=0, help="train the best again with so many seeds")
    flag("--plot", help="a .png file of the trials")
    flags = Flags(parser, required, overrides=True)
    told = answer(flags, argv)
    if told is not None:
        print(told)
        return
    rest, specs = split_fields(argv, _SPECS)
    arguments, overrides = parse(flags, rest)
    for name, least in (("trials", 1), ("seeds", 0)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected at least {least}.")
    settings = load_config(arguments.config, overrides)
    from jaxtune.studies.space import read_space

    space = read_space(specs, settings)
    plot = None if arguments.plot is None else Path(os.path.expanduser(arguments.plot))
    # The heavy imports wait until what was typed has been found good.
    from jaxtune.run.console import Report
    from jaxtune.run.signals import InterruptedRunError
    from jaxtune.studies import plots
    from jaxtune.studies.sweep import Plan, show, sweep
    from jaxtune.training.program_cache import keep_programs

    if plot is not None:
        plots.check_plot(plot)
    report = Report()
    keep_programs(report.line)
    folder = Path(os.path.expanduser(arguments.workdir))
    plan = Plan(settings, space, arguments.trials, arguments.seeds)
    try:
        results = sweep(plan, folder, report, token_folder(report.line))
    except InterruptedRunError as stop:
        report.line(str(stop))
        raise SystemExit(128 + stop.signum) from None
    show(results, folder, report)
    if plot is not None:
        plots.plot_trials(results["trials"], results["metric"], plot)
        report.line(f"plot: {plot}")


if __name__ == "__main__":
    start_command(main)
