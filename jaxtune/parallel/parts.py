"""Which dimension of a parameter `data` shares out while the parameter is updated.

Each device on `data` needs a parameter whole to compute with it, but its moments only to update it:
so each keeps the moments of a part, is sent the sum of the gradients of that part alone, updates
it, and the parts are gathered. That sends what one all-reduce of the gradients would.

Source: Xu et al. 2020, Automatic Cross-Replica Sharding of Weight Update in Data-Parallel Training;
Rajbhandari et al. 2020, ZeRO, stages 1 and 2.
"""

from collections.abc import Mapping

from jax.sharding import PartitionSpec

from jaxtune.core import paths
from jaxtune.core.types import Params


def choose_parts(
    specs: Mapping[str, PartitionSpec], params: Params, sizes: Mapping[str, int]
) -> dict[str, PartitionSpec]:
    """The spec of each parameter's moments, by its name: its own, and `data` on one dimension more.

    That is the first dimension which no other axis shares out and which `data` divides. Where there
    is none, and for vectors, which are many and small, moments lie as the parameter does.

    Args:
      specs: of the parameters, by name.
      params: arrays or `jax.ShapeDtypeStruct`.
      sizes: of the axes.

    Returns:
      Specs that name all dimensions.
    """
    parts = {}
    for name, leaf in paths.flatten(params).items():
        axes = [*specs[name], *[None] * (len(leaf.shape) - len(specs[name]))]
        free = (i for i, axis in enumerate(axes) if axis is None)
        place = next((i for i in free if leaf.shape[i] % sizes["data"] == 0), None)
        if sizes["data"] > 1 and len(axes) > 1 and place is not None:
            axes[place] = "data"
        parts[name] = PartitionSpec(*axes)
    return parts
