"""The scores of a config over several seeds, beside a bag-of-words baseline on the same rows.

    python benchmarks/seeds.py --config=configs/quickstart.py --seeds=0,1,2 --workdir=runs/seeds

Overrides such as --config.data.path=FOLDER are passed on. Each seed is a process of its own, so
that time and memory are those of one run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jaxtune.data.sources.rows import Rows, read_data
from jaxtune.run.arguments import parse, run_flags
from jaxtune.run.config import load_config
from jaxtune.tasks.registry import find_task


def main() -> None:
    """Runs the seeds and prints one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    arguments, rest = parser.parse_known_args()
    run, overrides = parse(run_flags(), rest)
    workdir = Path(run.workdir)
    settings = load_config(run.config, overrides)
    data = read_data(settings.data, find_task(settings.task).data.reader)
    found: dict[str, list[float]] = {}
    for seed in arguments.seeds.split(","):
        folder = workdir / f"seed{seed}"
        if folder.exists():
            raise SystemExit(f"{folder} exists: an old run would be reported. Use a new --workdir.")
        words = [f"--config.{name}={value}" for name, value in overrides.items()]
        command = [sys.executable, "-m", "jaxtune.main", f"--config={run.config}"]
        command += [f"--workdir={folder}", f"--config.seed={seed}", *words]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        results = json.loads((folder / "results.json").read_text())
        row = {
            f"{split} {name}": value
            for split, scores in results["scores"].items()
            for name, value in scores.items()
        }
        row |= {
            "wall seconds": time.perf_counter() - start,
            "compile seconds": results["compile_seconds"],
            "training examples/s": results["examples_per_second"],
            "peak memory MB": results["peak_memory_bytes"] / 1e6,
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    print(f"\n{run.config}, seeds {arguments.seeds}")
    for name, values in found.items():
        each = "  ".join(f"{value:.4f}" for value in values)
        print(f"{name:>22}  mean {statistics.mean(values):.4f}  ({each})")
    if settings.task == "classification" and "test" in data.splits:
        accuracy = bag_of_words(data.splits["train"], data.splits["test"])
        print(f"{'TF-IDF test accuracy':>22}  {accuracy:.4f}")


def bag_of_words(train: Rows, test: Rows) -> float:
    """Test accuracy of logistic regression on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    model.fit([" ".join(texts) for texts in train.inputs], train.labels)
    return float(model.score([" ".join(texts) for texts in test.inputs], test.labels))


if __name__ == "__main__":
    main()
