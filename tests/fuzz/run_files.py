"""What a run leaves, and what is typed, and what reads them."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mutations

METADATA: tuple[str, ...] = ("1/_CHECKPOINT_METADATA", "1/state/_METADATA")


def checkpoint() -> dict[str, bytes]:
    """As a run writes it."""
    from jaxtune.run.checkpoint import Checkpoints
    from jaxtune.run.progress import Progress

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkpoints"
        with Checkpoints(folder, {"model": "base", "sha256": "0"}) as checkpoints:
            checkpoints.save(_state(1), Progress(best_step=1, best_scores={"accuracy": 0.5}))
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }


def read_checkpoint(file: Path) -> None:
    """Restores the state, and what stands beside it."""
    from jaxtune.run.checkpoint import Checkpoints

    folder = next(parent for parent in file.parents if parent.name == "1").parent
    try:
        with Checkpoints(folder, {"model": "base", "sha256": "0"}) as checkpoints:
            checkpoints.restore(1, _state(0))
            checkpoints.progress(1)
    finally:
        if not (folder / "1").exists():  # it was set aside
            (folder / "1.damaged").rename(folder / "1")


def _state(step: int) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    from jaxtune.training.state import init_state

    state = init_state({"a": jnp.ones(3)}, optax.sgd(0.1), jax.random.key(0))
    return state._replace(step=jnp.int32(step))


def log() -> dict[str, bytes]:
    """Lines of metrics."""
    rows: list[dict[str, Any]] = [
        {"step": i, "event": "train", "train/loss": 1 / i, "validation/accuracy": None}
        for i in range(1, 6)
    ]
    rows.append({"step": 5, "event": "end"})
    return {"metrics.jsonl": b"".join(mutations.dumps(row) + b"\n" for row in rows)}


def read_log(file: Path) -> None:
    """Goes on with it from step 3, in a copy."""
    from jaxtune.run.trackers import JsonLines

    copy = shutil.copy(file, file.with_suffix(".copy"))
    tracker = JsonLines(Path(copy))
    try:
        tracker.start({}, 3)
        tracker.log(4, {"train/loss": 1.0})
    finally:
        tracker.finish()


def config() -> dict[str, bytes]:
    """A run's own."""
    from jaxtune.run.config import default_config

    settings = default_config()
    settings.task, settings.model.path, settings.data.path = "classification", "base", "data"
    return {"config.json": settings.to_json_best_effort().encode()}


def read_config(file: Path) -> None:
    """Reads the settings and checks them."""
    from jaxtune.run.config import load_config

    load_config(str(file), {})


def commands() -> dict[str, bytes]:
    """Words of command lines, a line each."""
    train = ["train", "--config=agnews", "--workdir=x", "--config.train.num_steps=10"]
    train += ["--config.optimizer.learning_rate=3e-5", "--config.tuning.name=lora"]
    train += ["--config.data.text_columns=a,b", "--config.data.max_length", "64", "--mode=eval"]
    predict = ["predict", "--model=x", "--input=x.csv", "--output=x.jsonl", "--batch_size=4"]
    return {"train": "\n".join(train).encode(), "predict": "\n".join(predict).encode()}


def mutate_words(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes words, or their order and number; the command is kept."""
    command, *words = data.decode().split("\n")
    if rng.random() < 0.5:
        words = (
            mutations.mutate_bytes(rng, "\n".join(words).encode(), others)
            .decode("utf-8", "surrogateescape")
            .split("\n")
        )
    for _ in range(rng.choice((0, 1, 2))):
        i = rng.randrange(len(words))
        name, equals, value = words[i].partition("=")
        odd = rng.choice((*mutations.NUMBERS, *mutations.UNICODE, "", "None", "(1,", "[]", "()()"))
        words[i] = rng.choice((f"{name}={odd}", name, f"{name}{odd}{equals}{value}", odd))
        words.insert(rng.randrange(len(words)), rng.choice(words))
    return "\n".join([command, *words]).encode("utf-8", "surrogateescape")


def read_command(file: Path) -> None:
    """Reads a command line, and for a run the settings that it names."""
    from jaxtune.run import arguments
    from jaxtune.run.config import load_config

    words = file.read_bytes().decode("utf-8", "surrogateescape").split("\n")[1:]
    is_run = file.name == "train"
    flags = arguments.run_flags() if is_run else arguments.predict_flags()
    if arguments.answer(flags, words) is not None:
        return
    found, overrides = arguments.parse(flags, words)
    if is_run and Path(found.config).suffix != ".py":  # which would be run
        load_config(found.config, overrides)
