"""`python -m jaxtune.predict --model=DIR --input=FILE --output=FILE`: labels new data."""

import argparse
import csv
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError, nearest
from jaxtune.io.atomic import write_atomic
from jaxtune.run.cli import run_command, token_folder
from jaxtune.run.huge_pages import restart_with_huge_pages

_OUTPUTS = (".jsonl", ".csv")


def main(argv: list[str]) -> None:
    """Reads new data, predicts, and writes one record for each row, in the same order.

    Raises:
      UserError: bad input.
    """
    arguments = _parse(argv)
    output = Path(os.path.expanduser(arguments.output))
    if output.suffix not in _OUTPUTS:
        raise UserError(f"--output={output}: expected a name that ends in .jsonl or .csv.")
    if output.is_dir() or (output.parent.exists() and not output.parent.is_dir()):
        raise UserError(f"--output={output}: expected a file in a folder, which is made if absent.")
    for name, least in (("batch_size", 1), ("max_length", 3)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value}: expected at least {least}.")
    source = Path(os.path.expanduser(arguments.input))
    if not source.exists():
        siblings = [p.name for p in source.parent.iterdir()] if source.parent.is_dir() else []
        raise UserError(f"--input={source}: there is no such file.{nearest(source.name, siblings)}")
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.core.units import human_seconds
    from jaxtune.run.console import Report
    from jaxtune.run.saved import open_saved, outputs_of, saved_task
    from jaxtune.tasks.task import keeping_tokens
    from jaxtune.training.program_cache import keep_programs

    report = Report()
    keep_programs(report.line)
    task, card = saved_task(arguments.model)
    own = [card["image_column"]] if task.head == "image" and card else card.get("text_columns", ())
    names = arguments.text_columns.split(",") if arguments.text_columns else own
    rows = task.data.read_new(source, names, arguments.encoding)
    saved = open_saved(arguments.model, arguments.compute_dtype, max_length=arguments.max_length)
    start = time.perf_counter()
    track = report.track(f"reading {source.name}")
    task = keeping_tokens(saved.task, token_folder(report.line))
    examples, notes = task.data.encode(rows, saved.processor, saved.data, track)
    for note in notes:
        report.line(note)
    _, outputs = outputs_of(saved, examples, arguments.batch_size, report, source.name)
    records = saved.task.output.decode(outputs, examples, saved.pretrained.class_names)
    write_atomic(output, _format(records, output.suffix))
    seconds = time.perf_counter() - start
    report.line(f"{len(records)} predictions in {human_seconds(seconds)}: {output}")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jaxtune.predict", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a model or adapter folder, or a hub id")
    parser.add_argument(
        "--input", required=True, help="a file of texts, words, questions; a folder of images"
    )
    parser.add_argument("--output", required=True, help=".jsonl or .csv")
    parser.add_argument("--text_columns", default="", help="NAME or NAME,NAME")
    parser.add_argument("--encoding", default="utf-8", help="of the input")
    parser.add_argument("--batch_size", type=int, default=64, help="examples a step")
    parser.add_argument("--max_length", type=int, help="tokens; longer texts are cut")
    parser.add_argument("--compute_dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args(argv)


def _format(records: list[dict[str, Any]], suffix: str) -> str:
    """JSON lines, or csv with what is no plain value as JSON."""
    if suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {
                name: json.dumps(value, ensure_ascii=False)
                if isinstance(value, dict | list)
                else value
                for name, value in record.items()
            }
        )
    return stream.getvalue()


if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(run_command(main, sys.argv[1:]))
