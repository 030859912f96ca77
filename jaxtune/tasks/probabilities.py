"""Logits as probabilities, and the logarithm of their sum, in the dtype of the logits."""

import numpy as np
from jaxtyping import Float


def softmax(logits: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... c"]:
    """Of classes of which one is right: positive, and 1 in all along the last axis."""
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def sigmoid(logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Of classes each of which applies or not, from 0 to 1."""
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500)))


def logsumexp(z: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "..."]:
    """`log sum exp z` over the last axis, of which one value at least is finite."""
    most = z.max(-1)
    return most + np.log(np.exp(z - most[..., None]).sum(-1))
