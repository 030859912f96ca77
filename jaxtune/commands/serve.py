"""`jaxtune serve --model=DIR`: a saved model over HTTP."""

import argparse
from pathlib import PurePath

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra
from jaxtune.run.arguments import Flags, make_parser
from jaxtune.run.typed import check_least, read

_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
_MEGABYTES = {"image": 16.0}  # of a body, by the head of the model
_MEGABYTES_OF_TEXTS = 2.0
_DEFAULT = "%(default)s if not said"


def serve_flags(prog: str) -> Flags:
    """The flags of the command."""
    required = ("model",)
    parser = make_parser(prog, required)
    flag = parser.add_argument
    flag("--model", help="a model or adapter folder, or a hub id")
    flag("--host", default="127.0.0.1", help=f"0.0.0.0 for all networks; {_DEFAULT}")
    flag("--port", type=int, default=8000, help=f"0 for a free one; {_DEFAULT}")
    flag("--max_rows", type=int, default=256, help=f"inputs of a request; {_DEFAULT}")
    flag("--max_queue", type=int, default=1024, help=f"inputs that may wait; {_DEFAULT}")
    flag("--max_megabytes", type=float, help="of a request; 2 if not said, 16 of images")
    flag("--timeout", type=float, default=30.0, help=f"seconds for a request; {_DEFAULT}")
    flag("--max_length", type=int, help="tokens; longer texts are cut")
    flag("--head", help="MODULE:FUNCTION, of a model with a head of your own")
    flag("--compute_dtype", choices=("float32", "bfloat16"), default="float32", help=_DEFAULT)
    return Flags(parser, required, overrides=False)


def main(argv: list[str], prog: str = "jaxtune serve") -> None:
    """Serves until it is told to stop.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input, or the extra packages are not installed.
    """
    flags = serve_flags(prog)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    _check(arguments, prog)
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.export.adapter_folder import check_head
    from jaxtune.run.console import Report
    from jaxtune.run.saved import open_saved
    from jaxtune.serving.bodies import Limits
    from jaxtune.serving.served import Served
    from jaxtune.serving.server import address_of, bind, serve
    from jaxtune.serving.service import Service
    from jaxtune.training.program_cache import keep_programs

    report = Report()
    keep_programs(report.line)
    with bind(arguments.host, arguments.port) as bound:
        folder, dtype = arguments.model, arguments.compute_dtype
        length, head = arguments.max_length, arguments.head
        saved = open_saved(folder, dtype, head=head, max_length=length)
        check_head(saved.pretrained)
        megabytes = arguments.max_megabytes or _MEGABYTES.get(saved.task.head, _MEGABYTES_OF_TEXTS)
        limits = Limits(
            int(megabytes * 1e6), arguments.max_rows, arguments.max_queue, arguments.timeout
        )
        name = "/".join(PurePath(folder).parts[-2:])
        for note in saved.processor.notes:
            report.line(note)
        report.line(f"serving {name} ({saved.task.name}) at {address_of(bound)}")
        serve(Service(Served(saved), name, limits), bound, arguments.timeout)
    report.line("stopped")


def _check(arguments: argparse.Namespace, prog: str) -> None:
    """Refuses what the command line alone shows to be wrong, and absent packages."""
    check_least(
        arguments, port=0, max_rows=1, max_queue=1, max_megabytes=0.001, timeout=0.1, max_length=3
    )
    if arguments.port > 65535:
        raise UserError(f"--port={arguments.port}: expected at most 65535.")
    if arguments.max_queue < arguments.max_rows:
        raise UserError(
            f"--max_queue={arguments.max_queue}: expected at least --max_rows,"
            f" {arguments.max_rows}, for else such a request would never be answered."
        )
    check_extra(prog, "serve", *_NEEDED)
