"""`jaxtune push --model=DIR --to=USER/NAME`: a model folder, and nothing else, to a hub."""


def main(argv: list[str], prog: str = "jaxtune push") -> None:
    """Makes the repository if it is absent, private unless asked otherwise, and uploads the folder.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: no model folder, no token, or a hub that refuses.
    """
    from jaxtune.run.arguments import Flags, make_parser
    from jaxtune.run.typed import path_of, read

    required = ("model", "to")
    parser = make_parser(prog, required)
    parser.add_argument("--model", help="a model or adapter folder, as a run wrote it")
    parser.add_argument("--to", help="USER/NAME on the hub; made if absent")
    parser.add_argument("--public", action="store_true", help="a new repository is for all to see")
    flags = Flags(parser, required, overrides=False)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    from jaxtune.reporting.push import push
    from jaxtune.run.console import Report

    report = Report()
    folder = path_of(arguments.model)
    url = push(folder, arguments.to, private=not arguments.public, say=report.line)
    report.line(f"{folder} is at {url}")
