"""Parameters that a strategy adds to a model, and the forward pass that uses them.

An added leaf stands in the same tree, beside the parameter that it acts on, such as
`.../query/kernel_lora_a` beside `.../query/kernel`. So the one label tree covers it, and names keep
telling the layer. The model is not touched: while it runs, the calls of those of its modules that
carry added leaves are intercepted.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, Params, PRNGKey
from jaxtune.tuning.partition import FROZEN


@runtime_checkable
class Adapter(Protocol):
    """A strategy that adds parameters. Implementations are frozen dataclasses."""

    def labels(self, params: Params) -> Any:
        """Labels of the extended tree."""
        ...

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """The tree with the added leaves, drawn from `key`; works on abstract values too."""
        ...

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model on the extended tree."""
        ...

    def merge(self, params: Params) -> Params:
        """A tree without the added leaves that computes the same, for export.

        Raises:
          UserError: there is no such tree.
        """
        ...


Edit = Callable[[nn.Module, Callable[..., Array], tuple[Any, ...], bool], Array]
"""(module, its own method, the arguments of the call, train) -> what the call gives instead.

A call by names gives its method these already."""

Fold = Callable[[Params, Sequence[str]], Params]
"""(the extended tree, names of added leaves) -> the tree with those leaves merged."""


def extend(strategy: Any, params: Params, key: PRNGKey) -> Params:
    """The tree that `strategy` labels: with its added leaves, or as it was if it adds none."""
    return strategy.extend(params, key) if isinstance(strategy, Adapter) else params


def adapt(strategy: Any, apply_fn: ApplyFn) -> ApplyFn:
    """The model on the tree that `extend` gives."""
    return strategy.adapt(apply_fn) if isinstance(strategy, Adapter) else apply_fn


def is_mergeable(strategy: Any) -> bool:
    """Whether `merge` gives a tree for `strategy`, which says so itself where it does not."""
    return getattr(strategy, "mergeable", True)


def merge(strategy: Any, params: Params) -> Params:
    """The inverse of `extend`: what was learned is put into the model's own leaves."""
    return strategy.merge(params) if isinstance(strategy, Adapter) else params


def find_targets(params: Params, targets: Sequence[str], kind: str) -> dict[str, tuple[int, int]]:
    """The matrices that an adapter acts on.

    Args:
      params: nested dicts of arrays or of `jax.ShapeDtypeStruct`.
      targets: regexes over leaf names; each must match at least one.
      kind: what asks, for messages.

    Returns:
      Shape by leaf name.

    Raises:
      UserError: no or malformed targets, a regex that matches nothing, or a target of other rank.
    """
    if not targets:
        raise UserError(f"{kind} has no targets: set `targets` to regexes over parameter names.")
    flat = paths.flatten(params)
    for target in targets:
        paths.match(((target, None), (".*", None)), params)
    pattern = re.compile("|".join(f"(?:{target})" for target in targets))
    shapes = {name: leaf.shape for name, leaf in flat.items() if pattern.search(name)}
    for name, shape in shapes.items():
        if len(shape) != 2:
            raise UserError(
                f"{kind} targets {name!r}, whose shape is {list(shape)}: expected a matrix. Make"
                " `targets` narrower, such as 'query/kernel$'."
            )
    return shapes


def check_alone(params: Params, name: str, own: str) -> None:
    """Refuses a matrix that another strategy's leaves stand beside, where the order would matter.

    Args:
      params: the extended tree.
      name: of the matrix.
      own: a regex for the added leaves of the strategy that asks.
    """
    for leaf in paths.leaf_names(params):
        if leaf.startswith(f"{name}_") and not re.search(own, leaf):
            raise UserError(
                f"{name!r} is changed by another strategy too ({leaf!r}), and the two cannot be"
                " told apart here. Choose other targets, or put lora first in config.tuning.name."
            )


def insert(params: Params, added: Mapping[str, Any]) -> Params:
    """A copy of nested dicts with more leaves, given by name.

    Raises:
      UserError: a name that is taken, or that leads through something other than a dict.
    """
    tree = jax.tree.map(lambda leaf: leaf, params)  # new dicts, the same leaves
    for name, leaf in added.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last in node:
            raise UserError(
                f"{name!r} cannot be added to the parameters: expected nested dicts without it."
            )
        node[last] = leaf
    return tree


def label_added(params: Params, added: str, name: str, head: str | None) -> Any:
    """The labels of a strategy that adds parameters and trains the head.

    Args:
      params: the extended tree.
      added: a regex for the added leaves.
      name: their label.
      head: a regex for the leaves labelled `head`; None for none.

    Returns:
      A tree of str like `params`; FROZEN for the rest.

    Raises:
      UserError: a regex matches nothing.
    """
    heads = () if head is None else ((head, "head"),)
    return paths.match(((added, name), *heads, (".*", FROZEN)), params)


def key_of(key: PRNGKey, name: str) -> PRNGKey:
    """The key that draws the added leaf `name`, so that other targets do not change it."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def intercept(
    apply_fn: ApplyFn,
    marker: str,
    edit: Edit,
    *,
    kind: type[nn.Module] = nn.Module,
    method: str = "__call__",
    fold: Fold | None = None,
) -> ApplyFn:
    """Runs a model with the calls of some of its Linen modules edited.

    Args:
      apply_fn: the model: any pure function, which may apply Linen modules.
      marker: what each added leaf, or dict of them, is called in the module that holds it, such as
        `kernel_lora_a`. Leaves whose names end in its part from the first `_` on, such as
        `embedding_lora_a`, belong to `fold`.
      edit: replaces the call of each module that holds the marker.
      kind: of the modules that `edit` knows how to edit.
      method: the method whose calls are edited.
      fold: puts added leaves that no edited module holds into the model's own, for matrices that a
        plain function or another kind of module uses. None if that cannot be done.

    Returns:
      A function of the same signature that raises a UserError at tracing if the model leaves some
      added leaves unused.
    """
    ending = re.compile(rf"(?:^|[/_]){re.escape(marker.removeprefix('kernel_'))}(?:$|/)")

    def adapted(
        params: Params, batch: Batch, *, key: PRNGKey | None, train: bool
    ) -> Float[Array, "b c"]:
        flat = paths.flatten(params)
        wanted = {id(leaf): name for name, leaf in flat.items() if ending.search(name)}
        edited: set[int] = set()

        def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            known = context.method_name == method and isinstance(module, kind)
            if not known or not module.has_variable("params", marker):
                return next_fun(*args, **kwargs)
            edited.update(map(id, jax.tree.leaves(module.get_variable("params", marker))))
            return edit(module, partial(next_fun, **kwargs), args, train)

        with nn.intercept_methods(interceptor):
            outputs = apply_fn(params, batch, key=key, train=train)
        missed = [name for leaf, name in wanted.items() if leaf not in edited]
        if not missed:
            return outputs
        if fold is None:
            raise UserError(
                f"the model leaves {len(missed)} of {len(wanted)} added parameters unused, such as"
                f" {min(missed)!r}: expected them to be in Linen modules with the method {method}."
                " Choose other targets."
            )
        with nn.intercept_methods(interceptor):
            return apply_fn(fold(params, missed), batch, key=key, train=train)

    return adapted
