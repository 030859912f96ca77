"""Where parameters and the rows of a batch lie on several devices.

A mesh has three axes. The rows of a batch are shared out over `data` and `fsdp`. Parameters are
whole on each place of `data`, which shares out their moments (`parts`); over `fsdp` each device
keeps a part of both, and the whole parameter is gathered before use; over `tensor` each device
keeps a part and computes with it alone. Which dimension lies on which axis is said by ordered
(regex, PartitionSpec) rules.

What a device computes of its rows is written out (`jax.shard_map`), so that what is sent is what
`collectives` has: parameters gathered over `fsdp`, sums of the gradients of trained leaves, these
leaves gathered over `data` once updated, the outputs of a batch where its loss reads them together,
and nothing else. The compiler alone places what `tensor` shares out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxtune.core import paths
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import Batch, Params
from jaxtune.parallel.parts import choose_parts
from jaxtune.settings import ParallelSettings

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")
"""The axes that the rows of a batch are shared out over."""

Rule = tuple[str, PartitionSpec]
"""(regex over parameter names, the axis of each dimension)."""


class Sharding(NamedTuple):
    """A mesh, and where each parameter lies on it.

    Attributes:
      mode: `jit`, or `pmap` where the training step runs under it.
      mesh: with the axes AXES, whose places the compiler may choose where nothing is said.
      specs: by the parameter's name; what has none is whole on every device.
      parts: of the moments and the summed gradient of a parameter, by its name; under `pmap` the
        specs.
    """

    mode: str
    mesh: Mesh
    specs: Mapping[str, PartitionSpec]
    parts: Mapping[str, PartitionSpec]

    @property
    def num_shares(self) -> int:
        """Parts that the rows of a batch are cut into."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def rows(self) -> NamedSharding:
        """Of arrays whose first axis is that of the rows."""
        return NamedSharding(self.mesh, PartitionSpec(ROWS))

    @property
    def whole(self) -> NamedSharding:
        """Of arrays that every device has in full."""
        return NamedSharding(self.mesh, PartitionSpec())

    def spec(self, name: str) -> PartitionSpec:
        """Of a parameter."""
        return self.specs.get(name, PartitionSpec())

    def part(self, name: str) -> PartitionSpec:
        """Of the moments and of the summed gradient of a parameter."""
        return self.parts.get(name, PartitionSpec())

    def shardings(self, tree: Any) -> Any:
        """The `NamedSharding` of each leaf of parameters or of a train state, by its name."""
        return paths.map_named(lambda name, leaf: self._named(self._fit(name, leaf)), tree)

    def part_shardings(self, params: Params) -> Any:
        """The `NamedSharding` of the part of each parameter that a device updates."""
        return paths.map_named(lambda name, _: self._named(self.part(name)), params)

    def bytes_per_device(self, tree: Any) -> int:
        """What one device keeps of a tree of arrays or of `jax.ShapeDtypeStruct`."""
        parts = jax.tree.map(
            lambda leaf, sharding: (
                int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
            ),
            tree,
            self.shardings(tree),
        )
        return sum(jax.tree.leaves(parts))

    def _named(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    def _fit(self, name: str, leaf: Any) -> PartitionSpec:
        """The spec of a parameter, or of a moment, whose name ends with that of its parameter.

        A moment of another shape than its parameter, as factored ones are, may not be divided so.
        """
        parameter = paths.owner(name, self.specs)
        if parameter is None:
            return PartitionSpec()
        if name in (parameter, f"params/{parameter}"):
            return self.spec(parameter)
        spec = self.part(parameter)
        if len(spec) != len(leaf.shape):
            return PartitionSpec()
        sizes = (1 if axis is None else self.mesh.shape[axis] for axis in spec)
        divides = all(n % size == 0 for n, size in zip(leaf.shape, sizes, strict=True))
        return spec if divides else PartitionSpec()


def mesh_sizes(settings: ParallelSettings, num_devices: int) -> dict[str, int]:
    """The size of each axis.

    Raises:
      UserError: sizes whose product is not the number of devices.
    """
    sizes = {name: getattr(settings, name) for name in AXES}
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    if -1 in sizes.values() and num_devices % known == 0:
        sizes = {name: num_devices // known if n == -1 else n for name, n in sizes.items()}
    if int(np.prod([*sizes.values()])) != num_devices:
        told = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(
            f"config.parallel: {told} does not make the {num_devices} devices that there are:"
            " expected sizes whose product that is, of which one may be -1 for the rest."
        )
    if settings.mode == "pmap" and jax.process_count() > 1:
        raise UserError(
            f"config.parallel.mode is 'pmap' in {jax.process_count()} processes: it runs in one."
            " Set config.parallel.mode=jit."
        )
    if settings.mode == "pmap" and sizes["data"] != num_devices:
        odd = next(name for name in ("fsdp", "tensor") if sizes[name] != 1)
        raise UserError(
            f"config.parallel.mode is 'pmap' with {odd} {sizes[odd]}: pmap shares out the rows of a"
            f" batch alone. Set config.parallel.{odd}=1, or config.parallel.mode=jit."
        )
    return sizes


def check_devices(settings: ParallelSettings, batch_size: int, num_devices: int) -> None:
    """Refuses what does not fit the devices, before anything is read.

    Raises:
      UserError: as `mesh_sizes`, or a batch with fewer examples than there are parts of it.
    """
    sizes = mesh_sizes(settings, num_devices)
    shares = sizes["data"] * sizes["fsdp"]
    if batch_size < shares:
        raise UserError(
            f"config.train.batch_size is {batch_size}, but data {sizes['data']} x fsdp"
            f" {sizes['fsdp']} devices share the examples of a batch: expected at least {shares}."
            " Make the batch larger, or use fewer devices for it."
        )


def make_sharding(
    settings: ParallelSettings,
    rules: Sequence[Rule],
    params: Params,
    devices: Sequence[Any] | None = None,
) -> Sharding | None:
    """The mesh over all devices and the place of each parameter; None for one device.

    Args:
      settings: sizes of the axes, and rules that come before those of the family.
      rules: of the model family. One that matches no parameter counts for nothing.
      params: arrays or `jax.ShapeDtypeStruct`, those that a strategy adds among them.
      devices: those of the mesh; None for all that JAX has.

    Raises:
      UserError: sizes that do not fit the devices, a rule that cannot be read or matches nothing,
        or a dimension that its axis does not divide.
    """
    count = jax.device_count() if devices is None else len(devices)
    sizes = mesh_sizes(settings, count)
    own = parse_rules(settings.rules, paths.leaf_names(params))
    specs = choose_specs((*own, *rules), params, sizes)
    if count == 1:
        return None
    kinds = (AxisType.Auto,) * len(AXES)
    mesh = jax.make_mesh(tuple(sizes.values()), AXES, axis_types=kinds, devices=devices)
    parts = specs if settings.mode == "pmap" else choose_parts(specs, params, sizes)
    return Sharding(settings.mode, mesh, specs, parts)


def choose_specs(
    rules: Sequence[Rule], params: Params, sizes: Mapping[str, int]
) -> dict[str, PartitionSpec]:
    """The spec of each parameter, by its name: that of the first rule found in it.

    Args:
      rules: ordered; what none matches is whole everywhere.
      params: arrays or `jax.ShapeDtypeStruct`.
      sizes: of the axes; one of size 1 shares out nothing.

    Raises:
      UserError: a spec with more dimensions than a parameter, or one that its axis does not divide.
    """
    specs = {}
    for name, leaf in paths.flatten(params).items():
        spec = find_spec(rules, name)
        _check_spec(name, leaf.shape, spec, sizes)
        used = (axis if axis is not None and sizes[axis] > 1 else None for axis in spec)
        specs[name] = PartitionSpec(*used)
    return specs


def find_spec(rules: Sequence[Rule], name: str) -> PartitionSpec:
    """That of the first rule found in a parameter's name; whole where none is."""
    return next((spec for regex, spec in rules if re.search(regex, name)), PartitionSpec())


def parse_rules(texts: Sequence[str], names: Sequence[str]) -> list[Rule]:
    """Rules from text such as `query/kernel$=fsdp tensor`, with `-` for a whole dimension.

    Args:
      texts: one rule each.
      names: of all parameters.

    Raises:
      UserError: a text that is no rule, an unknown axis, or a regex that matches none.
    """
    rules = []
    for text in texts:
        pattern, equals, right = text.rpartition("=")
        axes = [None if word == "-" else word for word in right.split()]
        where = f"config.parallel.rules: {text!r}"
        if not equals or not axes:
            raise UserError(
                f"{where}: expected REGEX=AXIS AXIS with an axis or - for each dimension, such as"
                " 'query/kernel$=fsdp tensor'."
            )
        for axis in axes:
            if axis not in (None, "fsdp", "tensor") or (axis and axes.count(axis) > 1):
                raise UserError(
                    f"{where}: found the axes {right!r}, expected fsdp and tensor at most once"
                    f" each, and - for a whole dimension.{nearest(str(axis), ROWS[1:])}"
                )
        regex = paths.compile_pattern(pattern)
        if not any(regex.search(name) for name in names):
            raise UserError(
                f"{where} matches none of the {len(names)} parameters."
                f"{paths.nearest_names(pattern, names)} Correct the pattern or drop the rule."
            )
        rules.append((pattern, PartitionSpec(*axes)))
    return rules


def _check_spec(
    name: str, shape: tuple[int, ...], spec: PartitionSpec, sizes: Mapping[str, int]
) -> None:
    """Refuses a spec that does not fit a parameter."""
    if len(spec) > len(shape):
        raise UserError(
            f"config.parallel: {name!r} has the shape {list(shape)}, but its rule names the axes of"
            f" {len(spec)} dimensions ({spell(spec)}). Put a narrower rule before it in"
            " config.parallel.rules."
        )
    for place, (size, axis) in enumerate(zip(shape, spec, strict=False)):
        if axis is not None and size % sizes[axis]:
            raise UserError(
                f"config.parallel.{axis} is {sizes[axis]}, which does not divide dimension {place}"
                f" of {name!r}, whose shape is {list(shape)}. Choose a divisor of {size}, or leave"
                f" it whole: config.parallel.rules='{re.escape(name)}$=-'."
            )


def spell(spec: PartitionSpec) -> str:
    """As rules write it, such as `fsdp -`."""
    return " ".join(axis or "-" for axis in spec)


def put(sharding: Sharding | None, name: str, value: np.ndarray) -> jax.Array:
    """One parameter where it belongs.

    Args:
      sharding: None for one device.
      name: of the parameter.
      value: the whole, of its shape and dtype; all processes have it alike.
    """
    if sharding is None:
        return jax.device_put(value)
    return _place(value, NamedSharding(sharding.mesh, sharding.spec(name)))


def place(tree: Any, shardings: Any) -> Any:
    """Each leaf where its sharding says, with its shape and dtype.

    Args:
      tree: numpy arrays, which all processes have alike, or arrays on devices.
      shardings: a `NamedSharding` for each leaf.
    """
    return jax.tree.map(_place, tree, shardings)


def reshard(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    """An array of the devices where a sharding says; they send each other what they lack."""
    return jax.jit(_same, out_shardings=sharding)(leaf)


def _same(leaf: jax.Array) -> jax.Array:
    return leaf


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return reshard(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def own_rows(sharding: Sharding | None, count: int) -> slice:
    """The rows of a batch of `count` that the devices of this process hold."""
    if sharding is None:
        return slice(0, count)
    held = sharding.rows.addressable_devices_indices_map((count,)).values()
    parts = [index[0].indices(count) for index in held if index is not None]
    return slice(min(start for start, *_ in parts), max(stop for _, stop, _ in parts))


def place_batch(sharding: Sharding | None, batch: Mapping[str, Any]) -> Batch:
    """A batch on the devices.

    Args:
      sharding: None for one device.
      batch: arrays of one first axis, that of the rows of `own_rows`; those of `jax.Array` are on
        the devices already.

    Returns:
      The same names; the first axis is that of all rows.
    """
    if sharding is None:
        return jax.device_put(dict(batch))
    return {
        name: value
        if isinstance(value, jax.Array)
        else jax.make_array_from_process_local_data(sharding.rows, value)
        for name, value in batch.items()
    }
