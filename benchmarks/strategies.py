"""What each strategy scores on four tasks, and what it costs: the table of the documentation.

    python benchmarks/strategies.py --workdir=runs/strategies --model=MINILM \
        --data classification=AG_NEWS --data pairs=STSB --data ner=WNUT17 --data qa=SQUAD

For each task and strategy the learning rate is that of the finder (`--mode=lr_find`): the lower one
of what its two rules say, the steepest fall of the loss and a tenth of where it is lowest. Then the
seeds are run. A strategy in stages has the rate of `full`, which its last stage is. Recipes are
short, and stand in strategies_rows.py. STSB is a folder of csv files with the columns sentence1,
sentence2 and score; all questions of SQUAD should have an answer, as few of them are trained on;
the other folders are as their configs have them.

What is done stands in `--results`, one record a run, from which the same command goes on, on
another machine too; `--table` and `--plot` need nothing else. `--tasks`, `--only` and `--seeds`
choose a part. Several processes may share a file, if each has tasks of its own. `--costs` measures
one batch of 32 x 48 tokens on classification, steps of the strategy and of `full` by turns in one
process. Overrides such as `--config.train.batch_size=8` count for every run.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from strategies_plot import plot
from strategies_results import Results, print_tables
from strategies_rows import ROWS, TASKS, settings_of

from jaxtune.run.arguments import split_fields

BENCHMARKS = Path(__file__).parent
FIGURE = BENCHMARKS.parent / "docs" / "strategies.svg"


def main() -> None:
    """Measures what is not there yet, and prints all of it."""
    arguments, overrides = arguments_of(sys.argv[1:])
    results = Results(arguments.results)
    if arguments.child:
        measure(arguments, overrides, results)
        return
    failed = []
    if not (arguments.table or arguments.plot):
        failed = run_all(arguments, overrides, results)
    if arguments.plot:
        plot(results, FIGURE)
        print(FIGURE)
    else:
        print_tables(results)
    if failed:
        raise SystemExit(f"These failed, and are tried again next time: {'; '.join(failed)}")


def arguments_of(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, with names checked, and the overrides."""
    words, overrides = split_fields(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workdir", type=Path, default=Path("runs/strategies"))
    add("--results", type=Path, default=BENCHMARKS / "strategies.json")
    add("--model", default="", help="the folder of all-MiniLM-L6-v2")
    add("--data", action="append", default=[], metavar="TASK=PATH")
    add("--tasks", default=",".join(TASKS), help="separated by commas")
    add("--only", default=";".join(ROWS), help="strategies, separated by semicolons")
    add("--seeds", default="0,1,2")
    add("--costs", action="store_true", help="measures steps and no scores")
    add("--table", action="store_true", help="prints the results and measures nothing")
    add("--plot", action="store_true", help="writes docs/strategies.svg and measures nothing")
    add("--child", nargs=2, help=argparse.SUPPRESS)
    found = parser.parse_args(words)
    found.data = dict(word.split("=", 1) for word in found.data if "=" in word)
    found.tasks = chosen(found.tasks.split(","), [*TASKS], parser)
    found.only = chosen(found.only.split(";"), [*ROWS], parser)
    found.seeds = [int(seed) for seed in found.seeds.split(",")]
    chosen([*found.data], [*TASKS], parser)
    found.workdir, found.results = found.workdir.absolute(), found.results.absolute()
    if found.costs:
        found.tasks = ["classification"]
    if not (found.table or found.plot):
        absent = [f"--data {task}=PATH" for task in found.tasks if task not in found.data]
        absent += [] if found.model else ["--model"]
        if absent:
            parser.error(f"expected {', '.join(absent)}")
    return found, overrides


def chosen(names: list[str], known: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Those that are known, in their own order."""
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no {', '.join(unknown)}: expected some of {', '.join(known)}")
    return [name for name in known if name in names]


def run_all(
    arguments: argparse.Namespace, overrides: dict[str, str], results: Results
) -> list[str]:
    """A process for each task and strategy that lacks a record; those of them that failed."""
    from strategies_runs import cell_of, missing

    failed = []
    for task in arguments.tasks:
        for strategy in arguments.only:
            if arguments.costs:
                due = not results.find("costs", strategy=strategy)
            else:
                own = paths(arguments, task) | overrides
                cell = cell_of(task, strategy, own, arguments.workdir)
                due = bool(missing(cell, arguments.seeds, results))
            if due:
                print(f"{'costs' if arguments.costs else task} of {strategy}", flush=True)
                command = [sys.executable, __file__, *sys.argv[1:], "--child", task, strategy]
                done = subprocess.run(command, env=environment(arguments))
                failed += [f"{strategy} of {task}"] if done.returncode else []
    return failed


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Programs are kept for the other seeds; those of scores compile in a third of the time."""
    found = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(arguments.workdir / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if not arguments.costs:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"
        found["XLA_FLAGS"] = flags
    return found


def paths(arguments: argparse.Namespace, task: str) -> dict[str, str]:
    return {"model.path": arguments.model, "data.path": arguments.data[task]}


def measure(arguments: argparse.Namespace, overrides: dict[str, str], results: Results) -> None:
    """The child's part: one task and one strategy."""
    task, strategy = arguments.child
    own = paths(arguments, task) | overrides
    if arguments.costs:
        from strategies_costs import costs

        pair = (settings_of(task, name, own) for name in (strategy, "full"))
        results.add({"kind": "costs", "strategy": strategy} | costs(TASKS[task].config, *pair))
        return
    import strategies_runs

    cell = strategies_runs.cell_of(task, strategy, own, arguments.workdir)
    strategies_runs.measure(cell, arguments.seeds, results)


if __name__ == "__main__":
    main()
