"""Losses over the vocabulary for chunks of scored tokens, so that no more logits exist at once.

All logits of a batch, [b t v], and their gradient are most of what a language model needs room for;
of masked ones few tokens are scored at all. Here the scored tokens come first, and a loop takes a
chunk of them at a time. The loss is one number, so its gradient by a chunk's logits is known with
the chunk: the gradients by states and word embeddings are summed in the same loop, and nothing is
computed twice.

Source: Wijmans et al. 2025, Cut Your Losses in Large-Vocabulary Language Models, for the memory;
there logits are computed again in the backward pass.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from jaxtune.core.types import Batch, LossFn, Mean, weights
from jaxtune.models.products import add_product, times_transposed, wide_product
from jaxtune.models.vocabulary import Words
from jaxtune.training.losses import make_cross_entropy
from jaxtune.training.scored_chunks import Order, chunk_size, counted_tokens, put, run_chunks


class TokenScores(NamedTuple):
    """What is told of each token; 0 for those that are not scored, of which nothing is known.

    Attributes:
      losses: `logsumexp(z) - z[label]`, in nats.
      hits: 1 where the likeliest word is the label.
    """

    losses: Float[Array, "b t"]
    hits: Float[Array, "b t"]


def make_word_loss(label_smoothing: float = 0.0, focal_gamma: float = 0.0) -> LossFn:
    """`make_cross_entropy` over a vocabulary, of logits or of `Words`.

    It has no gradient by the weights, and of `Words` no gradient of its gradient.

    Args:
      label_smoothing: from 0 to below 1.
      focal_gamma: from 0.
    """
    plain = make_cross_entropy(None, label_smoothing, focal_gamma)

    def loss_fn(outputs: Any, batch: Batch) -> Mean:
        if not isinstance(outputs, Words):
            return plain(outputs, batch)
        words, tokens = _flat(outputs, batch)
        chunk = chunk_size(*_sizes(words))
        if chunk is None:
            return plain(outputs.logits(), batch)
        count = counted_tokens(len(tokens.labels), chunk)
        if count is not None:
            return plain(*_first(words, tokens, count))
        fixed = _Fixed(words.dtype, chunk, label_smoothing, focal_gamma)
        total = jax.custom_vjp(partial(_total, fixed))
        total.defvjp(partial(_forward, fixed), _backward, symbolic_zeros=True)
        tokens = jax.lax.stop_gradient(tokens)
        return Mean(total(words.states, words.table, words.bias, tokens), jnp.sum(tokens.weight))

    return loss_fn


def token_scores(outputs: Any, batch: Batch) -> TokenScores:
    """The loss and the hit of each scored token.

    Args:
      outputs: logits [b t v], or `Words`; scores stay as they are.
      batch: `labels` int32 [b t]; `weight` float32 [b t], not 0 for what is scored.
    """
    if isinstance(outputs, TokenScores):
        return outputs
    import optax  # a tenth of a second that no prediction waits for

    if isinstance(outputs, Words):
        words, tokens = _flat(outputs, batch)
        chunk = chunk_size(*_sizes(words))
        if chunk is not None:
            found = _scores(words, tokens, chunk)
            return TokenScores(*(x.reshape(batch["labels"].shape) for x in found))  # [n] -> [b t]
        outputs = outputs.logits()
    logits, labels = outputs.astype(jnp.float32), batch["labels"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return TokenScores(losses, (jnp.argmax(outputs, axis=-1) == labels).astype(jnp.float32))


class _Tokens(NamedTuple):
    """What is asked of the tokens of a batch, or of a chunk, one after the other."""

    labels: Int[Array, " n"]
    weight: Float[Array, " n"]


class _Fixed(NamedTuple):
    """What is known when the program is made."""

    dtype: Any
    chunk: int
    label_smoothing: float
    focal_gamma: float


def _flat(words: Words, batch: Batch) -> tuple[Words, _Tokens]:
    labels = batch["labels"]
    weight = weights(batch, labels.shape).astype(jnp.float32)
    states = words.states.reshape(-1, words.states.shape[-1])  # [b t d] -> [n d]
    return dataclasses.replace(words, states=states), _Tokens(labels.ravel(), weight.ravel())


def _sizes(words: Words) -> tuple[int, int]:
    """Tokens and words."""
    return words.states.shape[0], words.table.shape[0]


def _first(words: Words, tokens: _Tokens, count: int) -> tuple[Array, Batch]:
    """Logits and batch of some tokens, whichever they are."""
    part = dataclasses.replace(words, states=words.states[:count])
    return part.logits(), jax.tree.map(lambda x: x[:count], tokens)._asdict()


def _logits_of(words: Words) -> Callable[[Array], Array]:
    """(states of some tokens) -> their logits, float32 at least."""
    product = times_transposed(words.table, words.dtype)
    return product if words.bias is None else lambda states: product(states) + words.bias


class _Read(NamedTuple):
    """Logits of a chunk and what a loss needs of them: log of the sum, of the label, mean."""

    logits: Float[Array, "n v"]
    reduced: tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]


def _read(logits: Float[Array, "n v"], labels: Int[Array, " n"]) -> _Read:
    right = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return _Read(logits, (jax.nn.logsumexp(logits, axis=-1), right, jnp.mean(logits, axis=-1)))


def _loss(fixed: _Fixed, log_total: Array, right: Array, mean: Array) -> Float[Array, " n"]:
    """The loss of each token, from what is reduced of its logits; see `make_cross_entropy`."""
    losses, smoothing = log_total - right, fixed.label_smoothing
    if smoothing:
        losses = (1.0 - smoothing) * losses + smoothing * (log_total - mean)
    if fixed.focal_gamma:
        wrong = jnp.maximum(1.0 - jnp.exp(right - log_total), 1e-7)
        losses = losses * wrong**fixed.focal_gamma
    return losses


class _Grads(NamedTuple):
    """By what `Words` are made of; None where it is not asked for."""

    states: Any
    table: Any
    bias: Any


def _sum(fixed: _Fixed, words: Words, tokens: _Tokens, wanted: _Grads) -> tuple[Array, _Grads]:
    """The weighted sum of the losses, and its gradient."""
    dtype, wide = words.dtype, jnp.promote_types(words.dtype, jnp.float32)
    table, logits_of = words.table.astype(dtype), _logits_of(words)
    (_, d), v = words.states.shape, words.table.shape[0]

    def make_start(padded: int) -> tuple[Array, _Grads]:
        shapes = _Grads((padded, d), (v, d), (v,))
        zeros = (jnp.zeros(s, wide) if w else None for s, w in zip(shapes, wanted, strict=True))
        return jnp.zeros((), wide), _Grads(*zeros)

    def body(order: Order, i: Array, sums: tuple[Array, _Grads]) -> tuple[Array, _Grads]:
        total, grads = sums
        states, (labels, weight) = order.chunk((words.states, tokens), i, fixed.chunk)
        read = _read(logits_of(states), labels)
        losses, pull = jax.vjp(partial(_loss, fixed), *read.reduced)
        by_total, by_right, by_mean = (x[:, None] for x in pull(weight.astype(wide)))
        shares = jnp.exp(read.logits - read.reduced[0][:, None])
        is_label = jnp.arange(v) == labels[:, None]
        by_logits = by_total * shares + jnp.where(is_label, by_right, 0) + by_mean / v
        return total + jnp.sum(losses * weight), _Grads(
            wanted.states and put(grads.states, wide_product(by_logits, table, dtype), i),
            wanted.table and add_product(grads.table, by_logits, states, dtype),
            wanted.bias and grads.bias + jnp.sum(by_logits, axis=0),
        )

    order, (total, grads) = run_chunks(tokens.weight, fixed.chunk, body, make_start)
    return total, grads._replace(states=wanted.states and order.back(grads.states))


def _total(fixed: _Fixed, states: Array, table: Array, bias: Any, tokens: _Tokens) -> Array:
    words = Words(states, table, bias, fixed.dtype)
    return _sum(fixed, words, tokens, _Grads(None, None, None))[0]


def _forward(fixed: _Fixed, *primals: Any) -> tuple[Array, _Grads]:
    """The sum, and its gradient by whatever of `Words` is trained, or has something below it."""
    wanted = _Grads(*(True if x is not None and x.perturbed else None for x in primals[:3]))
    states, table, bias, tokens = jax.tree.map(lambda x: x.value, primals)
    total, grads = _sum(fixed, Words(states, table, bias, fixed.dtype), tokens, wanted)
    like = zip(grads, (states, table, bias), strict=True)
    return total, _Grads(*(None if x is None else x.astype(y.dtype) for x, y in like))


def _backward(grads: _Grads, g: Any) -> tuple[Any, ...]:
    if isinstance(g, SymbolicZero):
        return None, None, None, None
    scaled = jax.tree.map(lambda x: g.astype(x.dtype) * x, grads)
    return *scaled, None


def _scores(words: Words, tokens: _Tokens, size: int) -> tuple[Array, Array]:
    """Losses and hits of all tokens."""
    logits_of = _logits_of(words)

    def body(order: Order, i: Array, found: tuple[Array, Array]) -> tuple[Array, ...]:
        states, labels = order.chunk((words.states, tokens.labels), i, size)
        read = _read(logits_of(states), labels)
        losses, hits = read.reduced[0] - read.reduced[1], jnp.argmax(read.logits, axis=-1) == labels
        return tuple(put(x, part, i) for x, part in zip(found, (losses, hits), strict=True))

    order, found = run_chunks(tokens.weight, size, body, lambda padded: (jnp.zeros(padded),) * 2)
    losses, hits = (order.back(x) for x in found)
    return losses, hits
