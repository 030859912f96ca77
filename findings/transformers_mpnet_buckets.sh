#!/usr/bin/env bash
# transformers: MPNet's relative_attention_num_buckets sizes a table, and attention takes 32 buckets anyway.
#
# One would guess: distances are put into as many buckets as the config says, as in T5, whose field has
# the same name.
#
# What happens: the table of scores gets that many rows, but the forward pass calls its bucketing with the
# default of 32. With 64 rows half of the table is never read and has no gradient; with 16 a forward pass
# of more than a few tokens raises IndexError.
#
# Versions: transformers 5.24.0, torch 2.13.0.
#
# Why it matters: somebody who trains an MPNet with finer or fewer distances trains something else, and who
# writes the model anew from its config gets other numbers for such a checkpoint.
#
# What to do: leave the field at 32; elsewhere, read it as the number of rows and use 32 buckets.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6
"$work/env/bin/python" - <<'EOF'
import torch
import transformers

print("transformers", transformers.__version__, "torch", torch.__version__)
ids = torch.randint(5, 50, (1, 200), generator=torch.Generator().manual_seed(0))


def rows_read(count):
    """Rows of the table that there are, and those that get a gradient."""
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = transformers.MPNetConfig(
        vocab_size=50, relative_attention_num_buckets=count, **sizes
    )
    torch.manual_seed(0)
    model = transformers.MPNetModel(config).eval()
    model(ids).last_hidden_state.square().sum().backward()
    table = model.encoder.relative_attention_bias.weight
    return len(table), int((table.grad.abs().sum(1) > 0).sum())


found = {count: rows_read(count) for count in (32, 64)}
print("rows, and those read:", found)
assert found == {32: (32, 31), 64: (64, 31)}, found  # no key after the query is at distance 0
try:
    rows_read(16)
except IndexError as error:
    print("16 rows: IndexError:", error)
else:
    raise SystemExit("16 buckets raise nothing")
EOF
