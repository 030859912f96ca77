"""Where the parameters stand that a strategy adds: in the model's own tree, under names of theirs.

In nested dicts an added leaf stands beside the parameter that it acts on, such as
`.../query/kernel_lora_a` beside `.../query/kernel`. Other trees (a list, a NamedTuple, an Equinox
module, an `nnx.State`, dicts with numbers for keys) have no place for it: an `Extended` holds their
leaves and the added ones together, each under the name that it has or would have in the tree.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Extended:
    """The leaves of a tree, and of what was added to it.

    Attributes:
      structure: the `PyTreeDef` of the tree without the added leaves.
      leaves: by name; first those of the tree in its order, then the added ones.
    """

    structure: Any
    leaves: dict[str, Any]

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The leaves under their names."""
        children = [(jax.tree_util.DictKey(name), leaf) for name, leaf in self.leaves.items()]
        return children, (self.structure, tuple(self.leaves))

    @classmethod
    def tree_unflatten(cls, aux_data: Any, children: Any) -> "Extended":
        """The inverse."""
        structure, names = aux_data
        return cls(structure, dict(zip(names, children, strict=True)))


def insert(params: Params, added: Mapping[str, Any]) -> Params:
    """The parameters with more leaves, given by name: nested dicts again, or else an `Extended`.

    Raises:
      UserError: a name that is taken, or lies below a leaf.
    """
    leaves = paths.flatten(params)
    for name in added:
        taken = [known for known in leaves if f"{name}/".startswith(f"{known}/")]
        if taken or any(known.startswith(f"{name}/") for known in leaves):
            raise UserError(
                f"{name!r} cannot be added to the parameters, which have {(*taken, name)[0]!r}."
            )
    if isinstance(params, Extended):
        return Extended(params.structure, leaves | dict(added))
    structure = jax.tree.structure(params)
    if jax.tree.structure(paths.unflatten(leaves)) == structure:
        return paths.unflatten(leaves | dict(added))
    return Extended(structure, leaves | dict(added))


def rebuild(params: Params, leaves: Mapping[str, Any]) -> Params:
    """The parameters with other leaves.

    Args:
      params: from `insert`.
      leaves: all of the model's own by name, and the added ones that stay.

    Returns:
      The model's own tree if no added one stays.
    """
    if not isinstance(params, Extended):
        return paths.unflatten(dict(leaves))
    own = list(params.leaves)[: params.structure.num_leaves]
    if leaves.keys() == set(own):
        return jax.tree.unflatten(params.structure, [leaves[name] for name in own])
    kept = {name: leaves[name] for name in params.leaves if name in leaves}
    return Extended(params.structure, kept)
