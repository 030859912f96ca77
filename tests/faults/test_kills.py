"""SIGKILL at aimed moments: the same command then ends with the bytes of a run left alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from metrics import steady_rows

from jaxtune import main

CHILD = Path(__file__).with_name("killed.py")
STRATEGIES = {
    "full": {"data.layout": "padded"},
    "lora": {"data.layout": "packed"},
    "gradual": {"data.layout": "packed"},
    "last_layers": {"activation_cache.max_memory_bytes": 0},  # its cache is in a file
}
RUN = {"train.num_steps": 9, "train.eval_every_steps": 3, "train.checkpoint_every_steps": 2}
MOMENTS = [
    *(("step", n) for n in (1, 2, 5, 8, 9)),
    *(("save", n) for n in (1, 2, 4, 6)),
    *(("saved", 9), ("evaluation", 1), ("evaluation", 3)),
    *(("export", n) for n in (1, 2, 3, 4)),
    ("exported", 3),
]
ONCE = {"gradual": ("stage", 1), "last_layers": ("cache", 2)}
"""What happens in one strategy alone, in the place of its first moment."""
CASES = [
    (strategy, *(ONCE.get(strategy, moment) if i == 0 else moment))
    for strategy in STRATEGIES
    for i, moment in enumerate(MOMENTS)
]


def steady(workdir: Path) -> dict:
    """What a run leaves, without what a clock measured."""
    found: dict = {}
    for folder in ("model", "adapter"):
        for file in sorted((workdir / folder).rglob("*")):
            found[str(file.relative_to(workdir))] = file.read_bytes()
    found["log"] = steady_rows(workdir)
    results = json.loads((workdir / "results.json").read_text())
    names = ("scores", "best_step", "steps", "epochs", "stage_starts", "classes", "notes")
    found["results"] = {name: results[name] for name in names}
    found["names"] = sorted(path.name for path in workdir.iterdir())
    return found


@pytest.fixture(scope="session")
def left_alone(once, write_settings, tiny_weights):
    """A function: strategy -> the folder of a config.json and of a finished run of it."""

    def make(strategy):
        def fill(folder):
            layers = 2 if strategy in ("gradual", "last_layers") else 1
            model = tiny_weights("classification", "bert", layers)
            write_settings("classification", strategy, model, folder, {})
            main.main(flags(folder, folder / "run", strategy))

        return once(f"left-alone-{strategy}", fill)

    return make


def flags(folder, workdir, strategy):
    changes = RUN | STRATEGIES[strategy]
    more = [f"--config.{name}={value}" for name, value in changes.items()]
    return [f"--config={folder / 'config.json'}", f"--workdir={workdir}", *more]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("strategy", "moment", "count"), CASES)
def test_killed_at_all_moments(left_alone, tmp_path, strategy, moment, count):
    folder, workdir = left_alone(strategy), tmp_path / "run"
    argv = flags(folder, workdir, strategy)
    cold = {"XDG_CACHE_HOME": str(tmp_path / "caches")} if count % 2 else {}
    done = subprocess.run(
        [sys.executable, CHILD, moment, str(count), *argv],
        env=os.environ | cold,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    main.main(argv)
    assert steady(workdir) == steady(folder / "run")


def test_there_are_enough_of_them():
    assert len(set(CASES)) >= 60
