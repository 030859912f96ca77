"""`jaxtune report --workdir=DIR`: the report of a finished run, made anew."""

import os
from pathlib import Path

from jaxtune.run.cli import start_command


def main(argv: list[str], prog: str = "python -m jaxtune.commands.report") -> None:
    """Makes report.html, figures/ and the card of the model.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: no finished run, or no such column.
    """
    from jaxtune.run.arguments import Flags, answer, make_parser, parse

    required = ("workdir",)
    parser = make_parser(prog, required)
    parser.add_argument("--workdir", help="of a run that has come to its end")
    parser.add_argument("--slice_by", help="a column of the data; scores are told for its values")
    flags = Flags(parser, required, overrides=False)
    told = answer(flags, argv)
    if told is not None:
        print(told)
        return
    arguments, _ = parse(flags, argv)
    workdir = Path(os.path.expanduser(arguments.workdir))
    from jaxtune.reporting.facts import read_facts

    read_facts(workdir)  # before the heavy imports
    from jaxtune.reporting.write import write
    from jaxtune.run.console import Report

    report = Report()
    report.line(f"report: {write(workdir, report, arguments.slice_by)}")


if __name__ == "__main__":
    start_command(main)
