"""Parameters that a strategy adds to a model, and the forward pass that uses them.

An added leaf stands in the same tree, beside the parameter that it acts on, such as
`.../query/kernel_lora_a` beside `.../query/kernel`. So the one label tree covers it, and names keep
telling the layer. The model is not touched: while it runs, the calls of those of its modules that
carry added leaves are intercepted.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxtune import paths
from jaxtune.errors import UserError
from jaxtune.types import ApplyFn, Batch, Params, PRNGKey


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
"""(module, its own method, the arguments of the call, train) -> what the call gives instead."""


def extend(strategy: Any, params: Params, key: PRNGKey) -> Params:
    """The tree that `strategy` labels: with its added leaves, or as it was if it adds none."""
    return strategy.extend(params, key) if isinstance(strategy, Adapter) else params


def adapt(strategy: Any, apply_fn: ApplyFn) -> ApplyFn:
    """The model on the tree that `extend` gives."""
    return strategy.adapt(apply_fn) if isinstance(strategy, Adapter) else apply_fn


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


def remove(params: Params, pattern: str) -> Params:
    """A copy of nested dicts without the leaves whose names match, nor dicts that they leave empty."""
    flat = paths.flatten(params)
    return paths.unflatten({n: leaf for n, leaf in flat.items() if not re.search(pattern, n)})


def intercept(
    apply_fn: ApplyFn,
    marker: str,
    edit: Edit,
    *,
    method: str = "__call__",
    fold: Callable[[Params], Params] | None = None,
) -> ApplyFn:
    """Runs a model with the calls of some of its Linen modules edited.

    Args:
      apply_fn: the model: any pure function that applies Linen modules.
      marker: the last word of an added leaf; a module is edited if it holds a parameter of that
        name.
      edit: replaces the call.
      method: the method whose calls are edited.
      fold: for models that are not made of Linen modules: puts the added leaves into the model's
        own. None if that cannot be done.

    Returns:
      A function of the same signature that raises a UserError at tracing if the model leaves some
      added leaves unused.
    """

    def adapted(
        params: Params, batch: Batch, *, key: PRNGKey | None, train: bool
    ) -> Float[Array, "b c"]:
        markers = re.compile(rf"(?:^|/){re.escape(marker)}(?:$|/)")
        wanted = {
            markers.split(name)[0] for name in paths.leaf_names(params) if markers.search(name)
        }
        edited: set[Any] = set()

        def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name != method or not module.has_variable("params", marker):
                return next_fun(*args, **kwargs)
            held = jax.tree.leaves(module.get_variable("params", marker))[0]
            edited.add(id(held))  # two modules may have one path in two trees
            return edit(module, next_fun, args, train)

        with nn.intercept_methods(interceptor):
            outputs = apply_fn(params, batch, key=key, train=train)
        if len(edited) >= len(wanted):
            return outputs
        if edited or fold is None:
            raise UserError(
                f"the model uses {len(edited)} of the {len(wanted)} parts with {marker!r} added, such"
                f" as {min(wanted)!r}: expected all of them to be Linen modules with the method"
                f" {method}. Choose other targets."
            )
        return apply_fn(fold(params), batch, key=key, train=train)

    return adapted
