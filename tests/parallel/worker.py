"""Runs jobs on simulated devices, in a process of its own, and writes what came out.

    python worker.py JOBS.json FOLDER

A job is a dict: `name`, `overrides` of the settings, `steps`, and optionally `save` (a folder of
checkpoints), `restore` (the same), `scores` (evaluates the validation split), `program` (the
collectives and the bytes of the compiled step). Arrays go to NAME.npz, the rest to NAME.json. The
environment names the other processes, if there are any: PROCESSES="id,count,port".
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(jobs_file: str, folder: str) -> None:
    from jaxtune.parallel import multihost

    if "PROCESSES" in os.environ:
        number, count, port = os.environ["PROCESSES"].split(",")
        multihost.join(f"localhost:{port}", int(count), int(number))
    for job in json.loads(Path(jobs_file).read_text()):
        arrays, facts = run_job(job)
        if multihost.is_first():
            np.savez(Path(folder) / f"{job['name']}.npz", **arrays)
            (Path(folder) / f"{job['name']}.json").write_text(json.dumps(facts))
    multihost.wait("done")


def run_job(job: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays (losses, parameters, outputs) and facts of one job."""
    from jaxtune.core import paths
    from jaxtune.core.errors import UserError
    from jaxtune.parallel import multihost
    from jaxtune.run import stages
    from jaxtune.run.checkpoint import Checkpoints
    from jaxtune.run.config import load_config
    from jaxtune.run.console import Report
    from jaxtune.run.evaluate import all_scores, predict_all
    from jaxtune.run.prepare import prepare
    from jaxtune.run.progress import Progress
    from jaxtune.run.scorer import make_scorer

    try:
        run = prepare(load_config(job["config"], job["overrides"]), Report(quiet=True))
    except UserError as error:
        return {}, {"error": str(error)}
    arrays, facts = {}, {"lengths": len(run.data.stream.examples.lengths)}
    first = 0
    stage = stages.begin(run, 0, run.params)
    if "restore" in job:
        with Checkpoints(Path(job["restore"])) as checkpoints:
            first = checkpoints.latest_step
            stage, _ = stages.restore(run, checkpoints, first)
    stream, losses = stage.loader.on_devices(first), []
    for _ in range(job.get("steps", 0)):
        _, batch = next(stream)
        if job.get("program") and not losses:
            facts |= program(run, stage, batch)
        state, info = stage.step(stage.state, stage.frozen, batch)
        stage = stage._replace(state=state)
        losses.append(float(info.loss.value))
    stream.close()
    if "save" in job:
        with Checkpoints(Path(job["save"])) as checkpoints:
            settled = stages.settled(run, stage.number, stage.frozen)
            checkpoints.save(stage.state, Progress(), settled)
    params = stages.to_score(run, stage)
    if job.get("scores"):
        examples = run.data.examples["validation"]
        step = make_scorer(run, Report(quiet=True)).step
        no_holes = paths.map_named(lambda name, leaf: None, params)
        means, outputs = predict_all(
            lambda batch: step(params, no_holes, batch),
            examples,
            run.data.eval_layout,
            per_token=run.task.output.per_token,
            sharding=run.sharding,
        )
        facts["scores"] = all_scores(run.task, means, outputs, examples)
        facts["means"] = means
        if outputs is not None and not run.task.output.per_token:
            arrays["outputs"] = outputs
    arrays["losses"] = np.array(losses)
    for name, leaf in paths.flatten(multihost.on_host(params)).items():
        arrays[f"params/{name}"] = np.asarray(leaf, np.float32)
    return arrays, facts


def program(run: Any, stage: Any, batch: Any) -> dict[str, Any]:
    """What the compiled step communicates and keeps, and what has to be gathered.

    Over `fsdp` that are parameters, over `data` the new values of what is trained; each device's
    part of them over the other axes.
    """
    import jax

    from jaxtune.analysis.messages import collectives
    from jaxtune.core import paths, trees

    to_gather = in_parts = 0
    if run.sharding is not None:
        tensor = run.sharding.mesh.shape["tensor"]
        for name, leaf in paths.flatten(run.params).items():
            spec = run.sharding.specs[name]
            if "fsdp" in spec:
                to_gather += trees.num_bytes(leaf) // (tensor if "tensor" in spec else 1)
        for name, leaf in paths.flatten(stage.state.params).items():
            if "data" in run.sharding.part(name):
                in_parts += leaf.addressable_data(0).nbytes
    compiled = stage.step.program(stage.state, stage.frozen, batch)
    memory = compiled.memory_analysis()
    return {
        "collectives": [
            (one.kind, one.num_bytes, one.shapes) for one in collectives(compiled.as_text())
        ],
        "argument_bytes": memory.argument_size_in_bytes,
        "bytes_to_gather": to_gather,
        "bytes_in_parts": in_parts,
        "moment_bytes": trees.num_bytes(stage.state.opt_state),
        "own_moment_bytes": sum(
            leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(stage.state.opt_state)
        ),
        "trainable_bytes": trees.num_bytes(stage.state.params),
        "trained_shapes": [leaf.shape for leaf in jax.tree.leaves(stage.state.params)],
        "trainable_leaves": len(jax.tree.leaves(stage.state.params)),
        "shapes": {name: list(x.shape) for name, x in batch.items()},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
