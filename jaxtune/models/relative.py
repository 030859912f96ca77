"""Attention that knows how far apart two tokens are: scores by their distance in the row.

The tokens of an example lie one after the other, so that their distance in a packed row is that in
the example; what lies in another example is not seen, whatever its score.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core import dropout
from jaxtune.core.types import Batch
from jaxtune.models.attention import SelfAttention
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense
from jaxtune.models.model import Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.products import product, transposed
from jaxtune.models.sight import Bias

_NO_EXAMPLE = -1  # which a table's rows are of


class Related(NamedTuple):
    """What an attention is given where tokens are related by their distance.

    Attributes:
      bias: which tokens see which.
      rows: of the table of buckets, normed.
      buckets: the row for each distance of a query from a key, from t - 1 down to 1 - t.
    """

    bias: Bias
    rows: Float[Array, "r d"]
    buckets: Int[Array, " n"]


def whole_bias(batch: Batch) -> Bias:
    """Which tokens of a batch see which, spelled out however long the rows are.

    Returns:
      [b 1 1 t], of packed rows [b 1 t t].
    """
    if "segment_ids" in batch:
        groups = batch["segment_ids"]
        allowed = groups[:, None, :, None] == groups[:, None, None, :]
    else:
        allowed = batch["attention_mask"][:, None, None, :] > 0
    return jnp.where(allowed, 0.0, jnp.finfo(jnp.float32).min)


def by_distance(buckets: Int[np.ndarray, " m"], length: Any) -> Int[Array, " n"]:
    """The buckets of the distances `length - 1` to `1 - length`, in this order.

    Args:
      buckets: those of the distances `m - 1` to `1 - m`, of more tokens than there are; m is odd.
      length: t, which may be symbolic; there are 2 t - 1 distances.
    """
    most = buckets.shape[0] // 2
    distances = length - 1 - jnp.arange(2 * length - 1)
    return jnp.asarray(buckets)[most - distances]


def skew(x: Float[Array, "*l t n"]) -> Float[Array, "*l t t"]:
    """From what each row has for each distance to what it has for each token: no gather.

    `y[i, j] = x[i, t - 1 - i + j]`, where n = 2 t - 1.

    Source: Dai et al. 2019, Transformer-XL, appendix B.
    """
    *leading, t, n = x.shape
    flat = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 1)]).reshape(*leading, t * (n + 1))
    return flat[..., t - 1 : t - 1 + t * n].reshape(*leading, t, n)[..., :t]


class RelativeAttention(SelfAttention):
    """Attention whose bias holds scores too, which no fused kernel takes."""

    def kernel(self, query: Array, key: Array, bias: Any, noise_ids: NoiseIds) -> str:
        """See `SelfAttention.kernel`."""
        return "xla"


class DisentangledAttention(RelativeAttention):
    """Scores of content with content, of content with distance, and of distance with content.

    `softmax((q k^T + q r_k^T[i - j] + r_q[i - j] k^T) / sqrt(c d_h)) v`, where c counts the terms,
    and r_k and r_q are the rows of the table projected as keys and as queries.

    Attributes:
      distance_projections: of the table as keys and as queries, those of the text where they are
        the same; an absent term has None.
      distance_dropout: the rate at which features of the table are dropped.

    Source: He et al. 2021, DeBERTa, equation 4.
    """

    distance_projections: tuple[str | None, str | None] = ("key_proj", "query_proj")
    distance_dropout: float = 0.0

    @nn.compact
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Array, "b t d"], seen: Related, noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b q d"]:
        """Attends over axis t; see `SelfAttention`."""
        d, h = x.shape[-1], self.num_heads
        names = dict.fromkeys((*self.projections, *filter(None, self.distance_projections)))
        layers = {name: self._dense(d, name) for name in names}
        query, key, value = (
            layers[name](x, noise_ids).reshape(*x.shape[:2], h, -1) for name in self.projections
        )  # [b t d] -> [b t h k]
        ids = None if noise_ids is None else _row_ids(seen.rows.shape[0])  # of the table, [1 r]
        rows = Dropout(self.distance_dropout)(seen.rows[None], ids)[:, seen.buckets]  # [1 n d]
        ids = None if ids is None else ids[:, seen.buckets]
        as_keys, as_queries = self.distance_projections
        scores, terms = jnp.zeros(()), 1
        if as_keys is not None:
            scores += skew(self._with_distances(query, layers[as_keys](rows, ids)))  # [b h q s]
            terms += 1
        if as_queries is not None:  # a key's distances rise with the query
            rising = self._with_distances(key, layers[as_queries](rows, ids)[:, ::-1])
            scores += transposed(skew(rising))  # [b h s q] -> [b h q s]
            terms += 1
        bias = seen.bias + scores.astype(jnp.float32) * (terms * query.shape[-1]) ** -0.5
        if places is not None and bias.shape[2] != 1:
            bias = jnp.take_along_axis(bias, places[:, None, :, None], axis=2)
        query = pick(query, places) * terms**-0.5
        asking = pick_noise_ids(noise_ids, places)
        return self.attend(query, key, value, bias, asking, noise_ids)

    def _with_distances(
        self, x: Float[Array, "b t h k"], rows: Float[Array, "1 n d"]
    ) -> Float[Array, "b h t n"]:
        """The product of each token with the row of each distance, head by head."""
        b, _, h, k = x.shape
        rows = rows.reshape(1, -1, h, k).transpose(0, 2, 3, 1)  # [1 n d] -> [1 h k n]
        rows = jnp.broadcast_to(rows, (b, *rows.shape[1:]))
        return product(x.transpose(0, 2, 1, 3), rows, self.dtype)


class DistanceEncoder(nn.Module):
    """A backbone whose layers share what they know of distances, in parts that can run alone.

    Attributes:
      make_embeddings: (config, dtype) -> a module that takes a batch and noise ids.
      make_encoder: (config, dtype) -> a module that takes x, a part, who sees whom, and noise ids.
      config: of the family.
      dtype: of the products.
    """

    make_embeddings: Callable[..., Any]
    make_encoder: Callable[..., Any]
    config: Any
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        self.embeddings = self.make_embeddings(self.config, self.dtype)
        self.encoder = self.make_encoder(self.config, self.dtype)
        c = self.config
        pool = partial(dense, c.hidden_size, c.initializer_range, self.dtype)
        self.pooler = Nested(pool, "dense")

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.num_hidden_layers

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.embeddings(batch, noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.encoder(x, part, whole_bias(batch), noise_ids)

    def pool(self, x: Float[Array, "b n d"], noise_ids: NoiseIds) -> Float[Array, "b n d"]:
        """`tanh(x W + b)` of the first token of each example, for those heads that want it."""
        return jnp.tanh(self.pooler(x, noise_ids))

    def word_table(self) -> nn.Embed:
        """The word embeddings, for a head that is tied to them."""
        return self.embeddings.word_embeddings


def _row_ids(count: int) -> UInt32[Array, "1 r"]:
    """Of the rows of a table for dropout, the same in every batch."""
    return dropout.noise_ids_of(jnp.full(count, _NO_EXAMPLE), jnp.arange(count))[None]
