"""Parameters that a strategy adds to a model, and the forward pass that uses them.

An added leaf stands in the same tree (see `extended`), so the one label tree covers it, and names
keep telling the layer. The model is not touched: while it runs, the calls of those of its Linen
modules that hold added leaves are intercepted. What belongs to no such module is merged into the
model's own leaves in the step, by strategies that can.
"""

import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jaxtyping import Array

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, Params, PRNGKey
from jaxtune.tuning.extended import Extended
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
      params: a tree of arrays or of `jax.ShapeDtypeStruct`.
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
                f"{kind} targets {name!r}, whose shape is {list(shape)}: expected a matrix, not the"
                " stacked ones of layers under scan or vmap. Make `targets` narrower, such as"
                " 'query/kernel$'."
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

    def adapted(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        wanted = {name: x for name, x in paths.flatten(params).items() if ending.search(name)}
        edited: set[str] = set()

        def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            known = context.method_name == method and isinstance(module, kind)
            if not known or not module.has_variable("params", marker):
                return next_fun(*args, **kwargs)
            edited.update(_held(module, marker, wanted))
            return edit(module, partial(next_fun, **kwargs), args, train)

        with nn.intercept_methods(interceptor):
            return _run(
                lambda tree: apply_fn(tree, batch, key=key, train=train),
                params, wanted, edited, fold, method,
            )  # fmt: skip

    return adapted


def _run(
    run: Callable[[Params], Any],
    params: Params,
    wanted: Collection[str],
    edited: Collection[str],
    fold: Fold | None,
    method: str,
) -> Any:
    """The outputs with all added leaves in use: those that no call is edited by are merged."""
    if not isinstance(params, Extended) or not wanted:
        try:
            outputs = run(params)
        except Exception:  # a plain function may go over all leaves of its dicts, and fail on added
            if edited or fold is None or not wanted:
                raise
        else:
            if len(edited) == len(wanted):
                return outputs
    missed = [name for name in wanted if name not in edited]
    if fold is None:
        raise UserError(
            f"the model leaves {len(missed)} of {len(wanted)} added parameters unused, such as"
            f" {min(missed)!r}: expected them to be in Linen modules with the method {method}, each"
            " told by its path, and the model to be given without jit. Choose other targets."
        )
    return run(fold(params, missed))


def _held(module: nn.Module, marker: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    """The names of the added leaves that a module holds.

    A model may hand on its parameters as they are, or changed: cast, or lifted by a transform. Then
    the module's path tells which one it is, unless the names of several end so.
    """
    same = {id(leaf): name for name, leaf in wanted.items()}
    for part, leaf in paths.flatten(module.get_variable("params", marker)).items():
        place = "/".join(filter(None, (*module.path, marker, part)))
        alike = [name for name in wanted if f"/{name}".endswith(f"/{place}")]
        if id(leaf) in same or len(alike) == 1:
            yield same.get(id(leaf)) or alike[0]
