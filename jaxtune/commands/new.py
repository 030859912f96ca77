"""`jaxtune new my.csv`: looks at data and writes a config that trains a model on it."""

import importlib.machinery
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtune.core.errors import UserError

if TYPE_CHECKING:
    from jaxtune.data.look.columns import Column
    from jaxtune.data.look.guesses import Guess
    from jaxtune.data.look.opening import Opened
    from jaxtune.drafting.first_config import Found
    from jaxtune.run.arguments import Flags
    from jaxtune.run.console import Report

_SHOWN_ROWS, _CELL = 3, 70
_NESTED = ("token_classification", "question_answering", "multi_label")
"""Tasks whose records hold lists."""

_KINDS = {
    **{"id": "a different value in each row", "empty": "nothing", "constant": "one value"},
    **{"flag": "two values", "class": "classes", "number": "numbers", "joined": "joined classes"},
    **{"list": "lists", "hot": "lists of 0 and 1", "words": "lists of words", "date": "dates"},
    **{"link": "links", "text": "texts", "name": "short texts", "file": "names of images"},
    **{"answers": "answers", "image": "images", "other": "something else"},
}


def new_flags(prog: str) -> "Flags":
    """The flags of the command."""
    from jaxtune.run.arguments import Flags, make_parser

    parser = make_parser(prog, ())
    parser.usage = f"{prog} DATA [flags]"
    flag = parser.add_argument
    flag("path", nargs="?", metavar="DATA", help="a file, or a folder, of texts or images")
    flag("--data", help="the same")
    flag("--model", help="a folder or a hub id; one that fits if not said")
    flag("--output", help="the config to write; if not said, named after the data, here")
    flag("--overwrite", action="store_true", help="replaces that file")
    flag("--task", help="where it is taken for another, such as regression")
    flag("--text_columns", default="", help="NAME or NAME,NAME, where others are taken")
    flag("--label_column", help="NAME, where another is taken")
    return Flags(parser, (), overrides=False)


def main(argv: list[str], prog: str = "jaxtune new") -> None:
    """Looks, tells what it took for what, writes the config, and says what comes next.

    Args:
      argv: without the program's name.
      prog: the command as it was typed.

    Raises:
      UserError: bad input, or a file that is there already.
    """
    from jaxtune.run.typed import read

    flags = new_flags(prog)
    typed = read(flags, argv)
    if typed is None:
        return
    arguments, _ = typed
    path = arguments.path or arguments.data
    if not path:
        raise UserError(f"{prog} needs the path of your data, as in {prog} my.csv.")
    if arguments.path and arguments.data:
        raise UserError(f"{prog}: found {arguments.path} and --data={arguments.data}: give one.")
    output = _output(path, arguments.output, arguments.overwrite)
    # The heavy imports wait until the arguments have been found good.
    from jaxtune.data.look.guesses import Hints
    from jaxtune.drafting.config_draft import Draft, write_draft
    from jaxtune.drafting.first_config import first_config, look
    from jaxtune.drafting.first_model import check_task
    from jaxtune.drafting.machine import this_machine
    from jaxtune.io.atomic import write_atomic
    from jaxtune.run.console import Report

    if arguments.task is not None:
        check_task(arguments.task)
    texts = tuple(filter(None, arguments.text_columns.split(",")))
    report = Report()
    seen = look(path, Hints(arguments.task, texts, arguments.label_column))
    _tell_columns(report, path, *seen)  # before what is refused of what was taken for what
    found = first_config(seen, arguments.model, this_machine())
    _tell_found(report, found)
    commands = _commands(found.opened, found.guess, output)
    title = f"{_TITLES[found.guess.task]} {Path(path).name}."
    write_atomic(output, write_draft(Draft(title, commands, _BODY, found.lines, found.others)))
    report.line(f"wrote {output}; read it, then")
    for command in commands:
        report.line(f"  {command}")
    if not found.opened.header:
        names = " and ".join(found.guess.texts)
        report.line(f"new data needs a header row with {names}, which this data has not")


_BODY = """Written by `jaxtune new`, which looked at the data and guessed: what it was not sure of
stands in comments at the end. `jaxtune train --help` lists every setting."""

_TITLES = {
    "classification": "Classifies the texts of",
    "few_shot": "Classifies, by few texts of each class, those of",
    "multi_label": "Finds any number of classes for the texts of",
    "regression": "Predicts a number for the texts of",
    "token_classification": "Tags the words of",
    "question_answering": "Answers the questions of",
    "image_classification": "Classifies the images of",
    "causal_lm": "Goes on with the texts of",
    "masked_lm": "Learns the language of",
}


def _tell_found(report: "Report", found: "Found") -> None:
    """Counts and lengths, the model, and what a person should know."""
    from jaxtune.drafting.config_draft import safe

    for name, fact in found.facts:
        report.line(safe(f"  {name:10}{fact}"))
    why = f" ({found.model.why}; --model names another)" if found.model.why else ""
    report.line(safe(f"  {'model':10}{found.model.path}{why}"))
    for note in found.notes:
        report.line(safe(f"note: {note}"))
    for other in found.others:
        report.line(safe(f"not sure: {other.told}"))


def _output(path: str, given: str | None, overwrite: bool) -> Path:
    """Where the config goes.

    Raises:
      UserError: it is no name of a config, or there already.
    """
    from jaxtune.run.typed import output_of, path_of

    if given is None:
        stem = re.sub(r"\W+", "_", Path(path.rstrip("/")).stem).strip("_") or "config"
        output = Path(f"{stem}_config.py" if _is_module(stem) else f"{stem}.py")
    else:
        output = path_of(given)
    output_of(str(output), (".py",))
    if output.exists() and not overwrite:
        raise UserError(
            f"{output} is there already, and is left as it is. Name another file with --output, or"
            " add --overwrite."
        )
    return output


def _is_module(name: str) -> bool:
    """Whether a file of that name would hide a module from programs that are run beside it."""
    places = [place for place in sys.path if place and Path(place).resolve() != Path.cwd()]
    found = importlib.machinery.PathFinder.find_spec(name, places)
    return found is not None or name in sys.stdlib_module_names


def _commands(opened: "Opened", chosen: "Guess", output: Path) -> tuple[str, str]:
    """What trains, and what labels new data."""
    workdir = Path("runs", output.stem)
    number = 2
    while workdir.exists():
        workdir, number = Path("runs", f"{output.stem}-{number}"), number + 1
    suffix = Path(opened.source.path).suffix.lower()
    new = f"new{suffix}" if suffix in (".tsv", ".jsonl", ".parquet", ".conll") else "new.csv"
    if chosen.task == "image_classification":
        new = "new_images"
    elif chosen.task == "question_answering":
        new = "new.json"
    elif chosen.task == "token_classification" and not opened.words:
        new = "new.jsonl"
    elif opened.words or (chosen.task in ("causal_lm", "masked_lm") and suffix == ".txt"):
        new = "new.txt"
    labels = "labels.jsonl" if chosen.task in _NESTED else "labels.csv"
    encoding = opened.source.files.encoding
    more = [] if encoding == "utf-8" or "." not in new else [f"--encoding={encoding}"]
    train = ["jaxtune", "train", f"--config={output}", f"--workdir={workdir}"]
    predict = ["jaxtune", "predict", f"--model={workdir}/model", f"--input={new}"]
    return shlex.join(train), shlex.join([*predict, f"--output={labels}", *more])


def _tell_columns(
    report: "Report",
    path: str,
    opened: "Opened",
    columns: "Sequence[Column]",
    chosen: "Guess",
) -> None:
    """What is taken for what, with three rows."""
    from jaxtune.data.sources.table import num_rows
    from jaxtune.drafting.config_draft import safe

    table = opened.train
    report.line(safe(f"{path}: {num_rows(table):,} training rows"))
    report.line(f"  {'task':10}{chosen.task}")
    roles = dict.fromkeys(chosen.texts, "read") | dict.fromkeys(chosen.labels, "learnt")
    for column in columns:
        missing = f", {column.missing} missing" if column.missing else ""
        count = f", {column.distinct:,} different" if column.distinct else ""
        told = f"{_KINDS[column.kind]}{count}{missing}"
        more = f"; {column.note}" if column.note else ""
        report.line(safe(f"  {roles.get(column.name, '-'):10}{column.name!r}: {told}{more}"))
    for i in range(min(_SHOWN_ROWS, num_rows(table))):
        cells = [f"{name}={_cut(table.columns[name][i])}" for name in roles]
        report.line(safe(f"  {f'row {i + 1}':10}{'  '.join(cells)}"))


def _cut(value: Any) -> str:
    """A value on one line, cut short."""
    text = " ".join(str(getattr(value, "name", value)).split())
    return repr(text if len(text) <= _CELL else f"{text[:_CELL]}...")
