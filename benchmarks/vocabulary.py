"""Temporaries and seconds of a language model's training step, with all logits and without.

python benchmarks/vocabulary.py [--rows=8] [--length=128] [--repeats=7] [MODEL ...]

Models are drawn at random at the sizes of MiniLM, BERT-base (15% of the tokens scored) and GPT-2
small (all but the last of each row). The two programs take turns, and the median of each counts.
Prints one line of JSON for each model.
"""

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtune.models import registry
from jaxtune.models.families.bert import BERT, BertConfig
from jaxtune.models.families.gpt2 import GPT2, GPT2Config
from jaxtune.tasks.language_modeling import scored
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.training.word_losses import make_word_loss
from jaxtune.tuning import partition
from jaxtune.tuning.selective import Full

MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
MODELS = {
    "minilm": (BERT, "masked_lm", MINILM, 0.15),
    "bert-base": (BERT, "masked_lm", BertConfig(), 0.15),
    "gpt2-small": (GPT2, "causal_lm", GPT2Config(), 1.0),
}


def make_batch(rows, length, words, share):
    """Random tokens, of which a share is scored; the last of each row never is."""
    rng = np.random.default_rng(0)
    chosen = rng.random((rows, length)) < share
    chosen[:, -1] = False
    return {
        "input_ids": rng.integers(0, words, (rows, length)).astype(np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "labels": rng.integers(0, words, (rows, length)).astype(np.int32),
        "weight": chosen.astype(np.float32),
        "example_ids": np.arange(rows, dtype=np.int32),
    }


def compiled(name, rows, length, dtype):
    """(the two compiled steps, their arguments, bytes of all logits)."""
    family, head, config, share = MODELS[name]
    module = family.make_module(head, config, 0, dtype)
    params = jax.jit(lambda key: registry.init_params(module, key))(jax.random.key(0))
    labels = partition.label(Full(), params)
    tx = make_optimizer("adamw", optax.constant_schedule(1e-4), labels)
    trainable, frozen = partition.partition(params, labels)
    state = init_state(trainable, tx, jax.random.key(1))
    batch = jax.device_put(make_batch(rows, length, config.vocab_size, share))
    apply_fn = registry.make_apply(module)
    steps = {
        "all": make_train_step(apply_fn, cross_entropy, tx),
        "chunks": make_train_step(scored(apply_fn), make_word_loss(), tx),
    }
    made = {
        kind: jax.jit(step, donate_argnums=0).lower(state, frozen, batch).compile()
        for kind, step in steps.items()
    }
    return made, (state, frozen, batch), 4 * rows * length * config.vocab_size


def measure(name, rows, length, repeats, dtype):
    """The figures of one model."""
    steps, (state, frozen, batch), logits = compiled(name, rows, length, dtype)
    states = {kind: jax.tree.map(jnp.copy, state) for kind in steps}
    seconds = {kind: [] for kind in steps}
    for _ in range(repeats + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            states[kind], _ = jax.block_until_ready(step(states[kind], frozen, batch))
            seconds[kind].append(time.perf_counter() - start)
    plans: Any = {kind: step.memory_analysis() for kind, step in steps.items()}
    return {
        "model": name,
        "shape": [rows, length],
        "dtype": str(jnp.dtype(dtype)),
        "jax": jax.__version__,
        "logits_mb": round(logits / 1e6),
        "temporaries_mb": {
            kind: round(plan.temp_size_in_bytes / 1e6) for kind, plan in plans.items()
        },
        "seconds": {kind: round(float(np.median(found[1:])), 2) for kind, found in seconds.items()},
    }


def main():
    """Measures the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    for name, default in (("rows", 8), ("length", 128), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    for name in args.models:
        row = measure(name, args.rows, args.length, args.repeats, jnp.dtype(args.dtype))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
