"""Strategies that choose among the model's own parameters: frozen data, labels by name."""

import dataclasses
from typing import Any

import jax

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW, LAYERS, check_count, depths, train_from
from jaxtune.tuning.partition import FROZEN, TRAINABLE

HEAD = r"(?:^|/)classifier/"
"""The names of the head of jaxtune's models."""


@dataclasses.dataclass(frozen=True)
class Full:
    """Trains every parameter.

    Source: Devlin et al. 2019, BERT, section 4.
    """

    def labels(self, params: Params) -> Any:
        """TRAINABLE for every leaf."""
        return jax.tree.map(lambda _: TRAINABLE, params)


@dataclasses.dataclass(frozen=True)
class Rules:
    """Ordered rules over parameter names; the first whose regex is found in a name decides.

    Attributes:
      rules: each is `REGEX=frozen` or `REGEX=trainable`, such as `embeddings/=frozen`; a last rule
        `.*=trainable` takes all that remain.
    """

    rules: tuple[str, ...]

    def labels(self, params: Params) -> Any:
        """The label of the first rule that matches each name.

        Raises:
          UserError: a rule that is malformed or matches nothing, or a parameter without a rule.
        """
        return paths.match([_parse(rule) for rule in self.rules], params)


@dataclasses.dataclass(frozen=True)
class Head:
    """Trains the last linear layer; pooler and encoder are frozen, so no backward pass enters them.

    Source: Alain and Bengio 2017, Understanding Intermediate Layers Using Linear Classifier Probes.

    Attributes:
      head: a regex for the parameters of the head; None for a model that has none of its own.
    """

    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for the head, FROZEN for the rest.

        Raises:
          UserError: no parameter is called so.
        """
        if self.head is None:
            raise UserError(
                "the strategy 'head' has nothing to train: this model's outputs come from its word"
                " embeddings, or are states of its last layer, and it has no head of its own."
                " Choose another strategy."
            )
        return _train_alone(params, self.head)


@dataclasses.dataclass(frozen=True)
class LastLayers:
    """Trains the `num_layers` layers nearest the output, and everything above them.

    Source: Lee, Tang and Lin 2019, What Would Elsa Do? Freezing Layers During Transformer
    Fine-Tuning.

    Attributes:
      num_layers: how many layers are trained; 0 trains the pooler and the head alone.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer, and is frozen with it; None for nothing.
    """

    num_layers: int
    layers: str = LAYERS
    below: str | None = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the lower layers and what lies below them, TRAINABLE for the rest.

        Raises:
          UserError: the tree has no such layers, or fewer than `num_layers`.
        """
        found, total = depths(params, self.layers, self.below)
        check_count(self.num_layers, total)
        return train_from(params, found, total - self.num_layers)


@dataclasses.dataclass(frozen=True)
class FirstLayersFrozen:
    """Freezes the embeddings and the `num_layers` layers nearest the input.

    Attributes:
      num_layers: how many layers are frozen; 0 freezes the embeddings alone.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer, and is frozen with it; None for nothing.
    """

    num_layers: int
    layers: str = LAYERS
    below: str | None = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the lowest layers and what lies below them, TRAINABLE for the rest.

        Raises:
          UserError: the tree has no such layers, or fewer than `num_layers`.
        """
        found, total = depths(params, self.layers, self.below)
        check_count(self.num_layers, total)
        return train_from(params, found, self.num_layers)


@dataclasses.dataclass(frozen=True)
class EmbeddingsFrozen:
    """Freezes the embeddings, half of a small model's parameters, and trains the rest.

    Attributes:
      below: a regex for the embeddings.
    """

    below: str = BELOW

    def labels(self, params: Params) -> Any:
        """FROZEN for the embeddings, TRAINABLE for the rest.

        Raises:
          UserError: no parameter is called so.
        """
        return paths.match(((self.below, FROZEN), (".*", TRAINABLE)), params)


@dataclasses.dataclass(frozen=True)
class BitFit:
    """Trains every bias (those of LayerNorm included) and the head.

    Source: Ben Zaken, Ravfogel and Goldberg 2022, BitFit: Simple Parameter-efficient Fine-tuning.

    Attributes:
      biases: a regex for the biases.
      head: a regex for the parameters of the head; None for none.
    """

    biases: str = r"(?:^|/)bias$"
    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for biases and head, FROZEN for the rest.

        Raises:
          UserError: one of the two matches no parameter.
        """
        return _train_alone(params, self.biases, self.head)


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Trains every normalisation layer, scales and biases, and the head.

    Source: Qi, Liu et al. 2022, Parameter-Efficient Tuning on Layer Normalization for Pre-trained
    Language Models.

    Attributes:
      norms: a regex for the parameters of the normalisation layers.
      head: a regex for the parameters of the head; None for none.
    """

    norms: str = r"(?:^|/)LayerNorm/"
    head: str | None = HEAD

    def labels(self, params: Params) -> Any:
        """TRAINABLE for normalisation layers and head, FROZEN for the rest.

        Raises:
          UserError: one of the two matches no parameter.
        """
        return _train_alone(params, self.norms, self.head)


def _train_alone(params: Params, *regexes: str | None) -> Any:
    """TRAINABLE where one of the regexes is found, FROZEN elsewhere; each must match something."""
    rules = [(regex, TRAINABLE) for regex in regexes if regex is not None]
    return paths.match([*rules, (".*", FROZEN)], params)


def _parse(rule: str) -> tuple[str, str]:
    pattern, equals, label = rule.rpartition("=")
    if not equals or label not in (FROZEN, TRAINABLE):
        raise UserError(
            f"config.tuning.rules: found {rule!r}, expected REGEX={FROZEN} or REGEX={TRAINABLE}."
        )
    return pattern, label
