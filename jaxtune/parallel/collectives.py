"""What devices that share a batch or a model send each other.

Source: Rajbhandari et al. 2020, ZeRO, stages 1 and 2 (`data`) and 3 (`fsdp`); Shoeybi et al. 2019,
Megatron-LM, section 3 (`tensor`).
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxtune.core import paths
from jaxtune.core.types import Array, Batch, Params
from jaxtune.parallel.sharding import ROWS, Sharding, reshard


def map_rows(
    function: Callable[..., Any], sharding: Sharding, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """A function that each device runs on its part of the rows; see `jax.shard_map`."""
    return jax.shard_map(
        function,
        mesh=sharding.mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=set(ROWS),
        check_vma=False,
    )


def over_devices(total: Array) -> Array:
    """The sum over the parts of a batch, where each of several devices runs on one; else itself.

    Args:
      total: [...], of the part of this device.

    Returns:
      [...], the same on all devices.
    """
    axes = _row_axes()
    return jax.lax.psum(total, axes) if axes else total


def num_row_parts() -> int:
    """Parts of a batch, of which each of several devices runs on one; 1 where one has all."""
    return math.prod(jax.lax.axis_size(axis) for axis in _row_axes())


def gather_rows(tree: Any) -> Any:
    """The rows of all parts of a batch, where each of several devices runs on one; else as it is.

    Args:
      tree: arrays of this device's rows, [b ...] each.

    Returns:
      [r b ...] of r parts, the same on all devices. What of it nobody reads is not sent.
    """
    axes = _row_axes()
    if not axes:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axes, tiled=True), tree)


def own_part(x: Array) -> Array:
    """Of the rows of all parts, as `gather_rows` gives them, those of this device.

    Args:
      x: [r b ...].

    Returns:
      [b ...].
    """
    axes = _row_axes()
    if not axes:
        return x
    rows = x.shape[0] // num_row_parts()
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axes) * rows, rows)


def _row_axes() -> tuple[str, ...]:
    """The axes over which this part of a program runs on parts of a batch."""
    axes = []
    for axis in ROWS:
        with contextlib.suppress(NameError):  # JAX has no other way to ask
            jax.lax.axis_size(axis)
            axes.append(axis)
    return tuple(axes)


def on_mesh(function: Callable[..., Any], sharding: Sharding) -> Callable[..., Any]:
    """A function in which what is traced may say how `tensor` shares it out.

    Needed where nobody shares the rows, so that `map_rows` is not used, which does it by itself.
    """

    def run(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(sharding.mesh.abstract_mesh):
            return function(*args)

    return run


def leaving_explicit_axes(
    function: Callable[..., tuple[Array, Params]],
) -> Callable[..., tuple[Array, Params]]:
    """A model's function that can be called on a mesh whose axes are explicit, too.

    There JAX asks to be told where the result of each lookup lies. Inside a model the compiler
    decides on that, as it does on meshes of other axes.

    Args:
      function: (parameters, batch, ...) -> (outputs [b ...], what is whole on every device).

    Returns:
      The same function; the rows of the outputs lie where those of the batch do.
    """

    def run(params: Params, batch: Batch, *rest: Any) -> tuple[Array, Params]:
        if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
            return function(params, batch, *rest)
        rows = jax.typeof(jax.tree.leaves(batch)[0]).sharding.spec[:1]
        shardings = (PartitionSpec(*rows), PartitionSpec())
        inside: Any = jax.sharding.auto_axes(function, out_sharding=shardings)
        return inside(params, batch, *rest)

    return run


def held(spec_of: Callable[[str], PartitionSpec], tree: Any) -> Any:
    """The `PartitionSpec` over the axes ROWS of each leaf, as `map_rows` takes them.

    Args:
      spec_of: `Sharding.spec` of parameters, `Sharding.part` of their summed gradients.
      tree: parameters.
    """

    def over_rows(name: str, leaf: Any) -> PartitionSpec:
        del leaf
        return PartitionSpec(*(axis if axis in ROWS else None for axis in spec_of(name)))

    return paths.map_named(over_rows, tree)


def gather(sharding: Sharding, tree: Params) -> Params:
    """In `map_rows`: parameters whole over `fsdp`, from the parts that the devices keep.

    Args:
      sharding: names the dimension of each leaf that `fsdp` shares out.
      tree: parts; a leaf [... n/f ...] becomes [... n ...], of the same dtype.
    """

    def whole(name: str, leaf: jax.Array) -> jax.Array:
        spec = sharding.spec(name)
        if "fsdp" not in spec:
            return leaf
        axis = spec.index("fsdp")
        gathered = _within_tensor(
            sharding, spec, lambda x: jax.lax.all_gather(x, "fsdp", axis=axis, tiled=True)
        )
        return gathered(leaf)

    return paths.map_named(whole, tree)


def sum_gradients(sharding: Sharding, grads: Params) -> Params:
    """In `map_rows`: the sum over all devices, of which each keeps the part that it updates.

    Args:
      sharding: as of `gather`; it also names the dimension that `data` shares out, if any.
      grads: of one device's rows; a leaf [... n ...] becomes [... n/f ...], and [... m ...] of
        another dimension [... m/d ...], of the same dtype.
    """

    def total(name: str, leaf: jax.Array) -> jax.Array:
        spec, whole = sharding.part(name), []
        for axis in reversed(ROWS):
            if axis in spec:
                leaf = _scatter(sharding, spec, axis, leaf)
            elif sharding.mesh.shape[axis] > 1:
                whole.append(axis)
        return jax.lax.psum(leaf, whole) if whole else leaf

    return paths.map_named(total, grads)


def in_parts(sharding: Sharding, params: Params) -> Params:
    """Outside `map_rows`: of parameters the parts that the devices update; nothing is sent."""
    return jax.lax.with_sharding_constraint(params, sharding.part_shardings(params))


def gather_parts(sharding: Sharding, params: Params) -> Params:
    """Outside `map_rows`: the inverse of `in_parts`; what `data` shares out is gathered."""
    return jax.lax.with_sharding_constraint(params, sharding.shardings(params))


def move(tree: Any, shardings: Any) -> Any:
    """Each leaf where its sharding says; where it lay before is freed.

    One leaf after the other, so that little lies in both places at once.

    Args:
      tree: arrays on the devices of the mesh.
      shardings: a `NamedSharding` for each leaf.
    """
    return jax.tree.map(_move, tree, shardings)


def _move(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    moved = jax.block_until_ready(reshard(leaf, sharding))
    leaf.delete()
    return moved


def split_features(x: Array, count: int) -> list[Array]:
    """What one product gives for several matrices side by side, apart; each shared over `tensor`.

    A cut of the whole over `tensor` would not be one of each matrix, so the whole is on all of
    them; what each gives is cut, and its gradient gathered, by itself.

    Args:
      x: [... n f].
      count: n.
    """
    parts = jnp.split(_over_tensor(x, None), count, axis=-1)
    return [_over_tensor(_over_tensor(part, None), "tensor") for part in parts]


def _over_tensor(x: Array, axis: str | None) -> Array:
    """Says where the last dimension lies, if there is a `tensor` axis to share it."""
    mesh = jax.sharding.get_abstract_mesh()
    if "tensor" not in mesh.axis_names or mesh.shape["tensor"] == 1:
        return x
    others = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*others, axis))


def _scatter(sharding: Sharding, spec: PartitionSpec, axis: str, leaf: jax.Array) -> jax.Array:
    """The sum over the devices of an axis, of which each gets the part that the spec names."""
    place = spec.index(axis)
    return _within_tensor(
        sharding,
        spec,
        lambda x: jax.lax.psum_scatter(x, axis, scatter_dimension=place, tiled=True),
    )(leaf)


def _within_tensor(
    sharding: Sharding, spec: PartitionSpec, collective: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """A collective over `fsdp` or `data` of each part over `tensor`.

    Without this, XLA gathers the leaf over `tensor` too before it runs the collective.
    """
    if sharding.mesh.shape["tensor"] == 1:
        return collective
    own = PartitionSpec(*(axis if axis == "tensor" else None for axis in spec))
    return jax.shard_map(
        collective, in_specs=own, out_specs=own, axis_names={"tensor"}, check_vma=False
    )
