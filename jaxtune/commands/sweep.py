"""`jaxtune sweep --config=... --workdir=... --trials=N`: looks for the best settings."""

from jaxtune.run.cli import token_folder

_SPECS = "--sweep."


def main(argv: list[str], prog: str = "jaxtune sweep") -> None:
    """Trains with settings that Optuna chooses, and tells the best.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input.
    """
    from jaxtune.run.arguments import Flags, make_parser, split_fields
    from jaxtune.run.config import load_config
    from jaxtune.run.typed import check_least, path_of, read

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
    rest, specs = split_fields(argv, _SPECS)
    typed = read(flags, rest)
    if typed is None:
        return
    arguments, overrides = typed
    check_least(arguments, trials=1, seeds=0)
    settings = load_config(arguments.config, overrides)
    from jaxtune.studies.space import read_space

    space = read_space(specs, settings)
    # The heavy imports wait until what was typed has been found good.
    from jaxtune.run.console import Report
    from jaxtune.run.signals import InterruptedRunError
    from jaxtune.studies import plots
    from jaxtune.studies.sweep import Plan, show, sweep
    from jaxtune.training.program_cache import keep_programs

    plot = arguments.plot and plots.plot_of(arguments.plot)
    report = Report()
    keep_programs(report.line)
    folder = path_of(arguments.workdir)
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
