"""`jaxtune generate --model=DIR --input=FILE --output=FILE`: texts after prompts."""

import csv
import io
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError

_OUTPUTS = (".jsonl", ".csv")


def main(argv: list[str], prog: str = "jaxtune generate") -> None:
    """Reads prompts, goes on with each, and writes a record for each row, in the same order.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input.
    """
    from jaxtune.run.typed import path_of, read

    flags = _flags(prog)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    _check_files(arguments, prog)
    # The heavy imports wait until the arguments have been found good.
    from rich.console import Console

    from jaxtune.data.sources.memory import from_memory
    from jaxtune.models.sampling import Sampling
    from jaxtune.run import generation
    from jaxtune.run.console import Report
    from jaxtune.run.predictions import own_columns
    from jaxtune.run.saved import open_saved, saved_task
    from jaxtune.training.program_cache import keep_programs

    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.top_k)
    plan = generation.Plan(arguments.max_new_tokens, sampling, arguments.seed, arguments.batch_size)
    generation.check_plan(plan)
    # What is written to the terminal is the text alone, which may go on to another command.
    report = Report() if arguments.output else Report(Console(stderr=True, highlight=False))
    keep_programs(report.line)
    folder, task, card = saved_task(arguments.model)
    generation.check_causal(folder, task)
    if arguments.prompt is not None:
        table = generation.read_prompts(from_memory({"text": [arguments.prompt]}, "prompt"), ())
    else:
        names = arguments.text_columns.split(",") if arguments.text_columns else None
        source = path_of(arguments.input)
        own = own_columns(task, card) if names is None else names
        table = generation.read_prompts(source, own, arguments.encoding)
    saved = open_saved(folder, arguments.compute_dtype)
    prompts = generation.encode_prompts(saved, table)
    records, notes = generation.generate(saved, prompts, plan, report)
    for note in [*saved.processor.notes, *notes]:
        report.line(note)
    if arguments.prompt is not None:
        print(records[0]["text"])
        return
    _write(path_of(arguments.output), records)
    report.line(f"{len(records)} texts: {arguments.output}")


def _flags(prog: str) -> Any:
    """The flags of the command."""
    from jaxtune.run.arguments import Flags, make_parser

    default = "%(default)s if not said"
    parser = make_parser(prog, ("model",))
    flag = parser.add_argument
    flag("--model", help="a model or adapter folder, or a hub id")
    flag("--input", help="a file of prompts, one a row")
    flag("--output", help=".jsonl or .csv")
    flag("--prompt", help="one prompt, in the place of --input; its text is printed")
    flag("--max_new_tokens", type=int, default=64, help=f"the most of a text; {default}")
    flag("--temperature", type=float, default=0.0, help="0, the likeliest token, if not said")
    flag("--top_p", type=float, default=1.0, help="draws from the likeliest with this probability")
    flag("--top_k", type=int, help="draws from so many of the likeliest; else from all")
    flag("--seed", type=int, default=0, help=f"of what is drawn; {default}")
    flag("--text_columns", default="", help="NAME, which holds the prompts")
    flag("--encoding", default="utf-8", help=f"of the input; {default}")
    flag("--batch_size", type=int, default=16, help=f"prompts at once; {default}")
    flag("--compute_dtype", choices=("float32", "bfloat16"), default="float32", help=default)
    return Flags(parser, ("model",), overrides=False)


def _check_files(arguments: Namespace, prog: str) -> None:
    """Refuses files that cannot be read or written, before anything heavy."""
    from jaxtune.run.typed import input_of, output_of

    given = [name for name in ("input", "output") if getattr(arguments, name) is not None]
    if arguments.prompt is not None:
        if given:
            raise UserError(
                f"{prog} takes --prompt, whose text is printed, or --input and --output, but found"
                f" --prompt and --{given[0]}. Leave one of them out."
            )
        return
    if len(given) < 2:
        raise UserError(f"{prog} needs --input and --output, or --prompt.")
    output_of(arguments.output, _OUTPUTS)
    input_of(arguments.input)


def _write(output: Path, records: list[dict[str, str]]) -> None:
    """A record a line, or as csv."""
    from jaxtune.io.atomic import write_atomic

    if output.suffix == ".jsonl":
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        write_atomic(output, "".join(lines))
        return
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=["prompt", "text"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_atomic(output, stream.getvalue())
