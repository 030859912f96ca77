"""`jaxtune compare RUN RUN ...`: finished runs in one table, and whether they differ."""

from jaxtune.core.errors import UserError


def main(argv: list[str], prog: str = "jaxtune compare") -> None:
    """Shows the runs, grouped by what they differ in beside the seed, and tests the differences.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: no runs, or runs of different tasks or data.
    """
    from jaxtune.run.arguments import Flags, make_parser
    from jaxtune.run.typed import output_of, path_of, read

    parser = make_parser(prog, ())
    parser.usage = f"{prog} RUN RUN ... [flags]"
    parser.add_argument("runs", nargs="*", metavar="RUN", help="a workdir")
    parser.add_argument("--output", help="a .json or .csv file of all scores")
    parser.add_argument("--plot", help="a .png file of the scores")
    flags = Flags(parser, (), overrides=False)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    if len(arguments.runs) < 2:
        raise UserError(f"{prog} needs two or more workdirs: {prog} RUN RUN ...")
    from jaxtune.run.console import Report
    from jaxtune.studies import compared, plots

    output = arguments.output and output_of(arguments.output, compared.FORMATS)
    plot = arguments.plot and plots.plot_of(arguments.plot)
    found = compared.compare([path_of(name) for name in arguments.runs])
    report = Report()
    compared.show(found, report)
    if output is not None:
        compared.write(found, output)
        report.line(f"table: {output}")
    if plot is not None:
        plots.plot_groups(found, plot)
        report.line(f"plot: {plot}")
