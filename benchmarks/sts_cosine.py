"""Spearman correlation of mean-pooled cosine with the scores of STS-B, without training.

A reference implementation of all-MiniLM-L6-v2 gives 0.8203 on the test split, so this is a check
of the whole path from tokenizer to last layer on real text.

    python benchmarks/sts_cosine.py --model=FOLDER --data=FOLDER
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from jaxtune.data.batching import batches
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text import text_tables
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokens import load_tokenizer, tokenize
from jaxtune.models.pretrained import load_pretrained
from jaxtune.run.config import load_config

BATCH_SIZE = 64


def main() -> None:
    """Prints the correlation on the test split."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    settings = load_config("configs/stsb.py", {"data.path": arguments.data})
    rows = read_data(settings.data, text_tables.TARGETS).splits["test"]
    model = load_pretrained(arguments.model, num_outputs=1, key=jax.random.key(0))
    sides = [embed(model, [(pair[side],) for pair in rows.inputs]) for side in (0, 1)]
    cosine = np.sum(sides[0] * sides[1], axis=-1)
    found = stats.spearmanr(cosine, rows.labels).statistic  # pyright: ignore
    print(f"Spearman on {len(rows.inputs)} test pairs: {found:.4f} (reference 0.8203)")


def embed(model: Any, texts: list[tuple[str, ...]]) -> Float[np.ndarray, "n d"]:
    """Mean of the last layer over real tokens, divided by its norm."""

    @jax.jit
    def pooled(batch: dict[str, Array]) -> Float[Array, "b d"]:
        states = model.module.apply({"params": model.params}, batch, method="hidden_states")
        mask = batch["attention_mask"][:, :, None]
        mean = jnp.sum(states[-1] * mask, axis=1) / jnp.sum(mask, axis=1)
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)

    tokenizer = load_tokenizer(model.folder)
    examples = Examples(tokenize(tokenizer, texts, model.config.max_length)[0])
    lengths = batches.choose_lengths(examples.lengths, 4)
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for index in batches.eval_order(examples.lengths, lengths, BATCH_SIZE):
        batch = examples.collate(index, BATCH_SIZE)
        vectors[index.indices] = np.asarray(pooled(batch))[: len(index.indices)]
    return vectors


if __name__ == "__main__":
    main()
