"""Worker: jaxtune from few labelled texts, for benchmarks/fewshot.py.

    python benchmarks/peers/fewshot_worker.py JOB.json

JOB has what `setfit_worker` reads, and `fields`: settings by their dotted names. The seconds are
those of `jaxtune.train`: weights, compiling, steps, checkpoint and export, without the test.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Trains and scores."""
    import jaxtune as jt
    from jaxtune.run.console import Report

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = json.loads(Path(job["rows"]).read_text(encoding="utf-8"))
    tables = {
        split: {"text": [text for text, _ in part], "label": [label for _, label in part]}
        for split, part in rows.items()
    }
    config = jt.default_config()
    for name, value in ({"model.path": job["model"], "seed": job["seed"]} | job["fields"]).items():
        config.update_from_flattened_dict({name: value})
    begin, test = time.perf_counter(), tables.pop("test")
    done = jt.train(config, job["folder"], data=tables, report=Report(quiet=True))
    seconds, process = time.perf_counter() - begin, time.time() - job["started"]
    cpu = time.process_time()
    accuracy = jt.evaluate(f"{job['folder']}/model", test)["accuracy"]
    found = {"accuracy": accuracy, "seconds": seconds, "process": process, "cpu": cpu}
    print(json.dumps(found | {"compiling": done["compile_seconds"]}), flush=True)


if __name__ == "__main__":
    main()
