"""Scores by distance: which kernel may add them, and that none is gathered wrongly."""

import jax.numpy as jnp
import numpy as np

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.attention import SelfAttention
from jaxtune.models.relative import RelativeAttention, by_distance, skew


def test_no_fused_kernel_takes_scores_for_a_mask():
    """cuDNN's is given who sees whom alone, so that scores would be lost."""
    query, bias = jnp.zeros((2, 8, 2, 64)), jnp.zeros((2, 2, 8, 8))
    chosen = arithmetic(jnp.bfloat16, Device("gpu", 9.0))
    kernels = [
        kind(2, 0.1, 0.02, chosen).kernel(query, query, bias, None)
        for kind in (SelfAttention, RelativeAttention)
    ]
    assert kernels == ["cudnn", "xla"]


def test_a_token_gets_what_stands_for_its_distance():
    for t in (1, 2, 5):
        distances = by_distance(np.arange(9, -10, -1), t)  # each is its own bucket
        found = skew(jnp.broadcast_to(distances, (3, t, 2 * t - 1)))
        wanted = np.arange(t)[:, None] - np.arange(t)  # of a query from a key
        np.testing.assert_array_equal(found, np.broadcast_to(wanted, (3, t, t)))
