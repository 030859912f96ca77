"""Steps and predictions compile for devices that are not here, where their compilers are.

JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 pytest -m exhaustive tests/laws/test_compiled_for.py
"""

import jax
import pytest
from copies import make_flat
from cover import CASES, num_layers, pairs_of_kinds, values_with_kinds

from jaxtune.analysis import targets
from jaxtune.frozen.outline import outline_batch
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.run.console import Report
from jaxtune.run.footprint import fits, largest_batch, measure
from jaxtune.run.prepare import prepare
from jaxtune.training.program_cache import keeping_none

NARROW = [case for case in CASES if case.placement == "one" and case.precision == "bfloat16"]
COMPILED = [
    *(("v5e", case) for case in pairs_of_kinds(NARROW)),
    *(("h100", case) for case in values_with_kinds(NARROW)),
]
"""Every two kinds of task, family, strategy and layout that can be together, or every kind."""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(*x, id=f"{x[0]}-{'-'.join(x[1])}") for x in COMPILED]
)
def test_step_and_prediction_compile(name, case, tiny_families, tiny_settings, tmp_path):
    pytest.importorskip("libtpu" if name == "v5e" else "jax_cuda12_plugin")
    target, model = targets.find_target(name), tiny_families[case.family]
    if num_layers(case) == 1:
        model = make_flat(model, tmp_path / "flat")
    changes = {"model.from_scratch": True, "data.layout": case.layout}
    changes |= {"precision.compute_dtype": "bfloat16"}
    settings = tiny_settings(case.task, case.strategy, model, **changes)
    run = prepare(settings, Report(quiet=True), target=target)
    found = measure(run, 0, largest_batch(run, 0), target)
    assert fits(found, target)
    assert found.launched.kernels

    def predict(params, batch):
        return run.tuning.apply_fn(params, batch, key=None, train=False)

    place = jax.sharding.SingleDeviceSharding(target.devices[0])
    inputs = outline_batch(run.data.stream, TrunkPlan(0), run.pretrained.module, {}, "float32")
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (run.params, inputs)
    )
    platform = target.chip.device.platform
    with targets.tracing_for(target), keeping_none():
        traced = jax.jit(predict).trace(*shapes)
        lowered = traced.lower(lowering_platforms=("tpu" if platform == "tpu" else "cuda",))
        assert lowered.compile().as_text()
