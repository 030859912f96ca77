"""`jaxtune compare RUN RUN ...`: finished runs in one table, and whether they differ."""

import os
from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.run.cli import start_command


def main(argv: list[str], prog: str = "python -m jaxtune.commands.compare") -> None:
    """Shows the runs, grouped by what they differ in beside the seed, and tests the differences.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: no runs, or runs of different tasks or data.
    """
    from jaxtune.run.arguments import Flags, answer, make_parser, parse

    parser = make_parser(prog, ())
    parser.usage = f"{prog} RUN RUN ... [flags]"
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a workdir")
    parser.add_argument("--output", help="a .json or .csv file of all scores")
    parser.add_argument("--plot", help="a .png file of the scores")
    flags = Flags(parser, (), overrides=False)
    told = answer(flags, argv)
    if told is not None:
        print(told)
        return
    arguments, _ = parse(flags, argv)
    if len(arguments.runs) < 2:
        raise UserError(f"{prog} needs two or more workdirs: {prog} RUN RUN ...")
    from jaxtune.run.console import Report
    from jaxtune.studies import compared, plots

    output, plot = (
        None if name is None else Path(os.path.expanduser(name))
        for name in (arguments.output, arguments.plot)
    )
    if output is not None:
        compared.check_output(output)
    if plot is not None:
        plots.check_plot(plot)
    found = compared.compare([Path(os.path.expanduser(name)) for name in arguments.runs])
    report = Report()
    compared.show(found, report)
    if output is not None:
        compared.write(found, output)
        report.line(f"table: {output}")
    if plot is not None:
        plots.plot_groups(found, plot)
        report.line(f"plot: {plot}")


if __name__ == "__main__":
    start_command(main)
