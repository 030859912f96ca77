"""`jaxtune report --workdir=DIR`: the report of a finished run, made anew."""


def main(argv: list[str], prog: str = "jaxtune report") -> None:
    """Makes report.html, figures/ and the card of the model.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: no finished run, or no such column.
    """
    from jaxtune.run.arguments import Flags, make_parser
    from jaxtune.run.typed import path_of, read

    required = ("workdir",)
    parser = make_parser(prog, required)
    parser.add_argument("--workdir", help="of a run that has come to its end")
    parser.add_argument("--slice_by", help="a column of the data; scores are told for its values")
    flags = Flags(parser, required, overrides=False)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    workdir = path_of(arguments.workdir)
    from jaxtune.reporting.facts import read_facts

    read_facts(workdir)  # before the heavy imports
    from jaxtune.reporting.write import write
    from jaxtune.run.console import Report

    report = Report()
    report.line(f"report: {write(workdir, report, arguments.slice_by)}")
