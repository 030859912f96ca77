#!/usr/bin/env bash
# datasets: with_format("numpy") and with_format("jax") change values, not the container alone.
#
# One would guess: with_format("numpy") gives each column in the dtype that it is stored in; with_format
# ("jax") does as jax does, and whole numbers that do not fit are an error or at least a warning.
#
# What happens: "numpy" gives every float column as float32 and every column of whole numbers as int64:
# float64 16777217.0 is 16777216.0, 1e-60 is 0.0, and uint64 ids from 2**63 on are negative. "jax" gives
# int32 where x64 is off: 2**40 is 0, and two ids that differ in their upper half are the same. Nothing
# is said. with_format("arrow"), and no format, give what is stored; with_format("numpy", dtype=...)
# sets one dtype for all columns.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, numpy 2.4.6, jax 0.10.2.
#
# Why it matters: ids and hashes by which predictions are joined to their rows, seconds since 1970 as
# floats (of which float32 holds multiples of 128), and regression targets in float64.
#
# What to do: take such columns without a format or through Arrow; keep ids as texts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6 jax==0.10.2 jaxlib==0.10.2
HF_HOME="$work/home" HF_HUB_OFFLINE=1 JAX_PLATFORMS=cpu "$work/env/bin/python" - <<'EOF'
import datasets
import jax
import pyarrow as pa

print("datasets", datasets.__version__, "jax", jax.__version__)
stored = {
    "target": pa.array([16777217.0, 1e-60], pa.float64()),
    "hash": pa.array([2**63 + 5, 7], pa.uint64()),
    "id": pa.array([2**40 + 3, 3], pa.int64()),
}
rows = datasets.Dataset(pa.table(stored))
plain, numpy, arrays = rows[:], rows.with_format("numpy")[:], rows.with_format("jax")[:]
for name in stored:
    print(f"{name}: stored {stored[name].type} {plain[name]}")
    for kind, found in (("numpy", numpy), ("jax", arrays)):
        print(f"    {kind}: {found[name].dtype} {found[name].tolist()}")
assert plain == {name: column.to_pylist() for name, column in stored.items()}
assert str(numpy["target"].dtype) == "float32" and numpy["target"].tolist() == [16777216.0, 0.0]
assert str(numpy["hash"].dtype) == "int64" and numpy["hash"].tolist() == [5 - 2**63, 7]
assert str(arrays["id"].dtype) == "int32" and arrays["id"].tolist() == [3, 3]
EOF
