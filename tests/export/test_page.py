"""The Python of docs/export.md, which needs files that the commands there write."""

import re
from pathlib import Path

import numpy as np

from jaxtune import __main__ as console

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_blocks_run_where_the_files_are(tiny_weights, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/model").symlink_to(tiny_weights("classification", "bert", 1))
    for form, file in (("onnx", "model.onnx"), ("stablehlo", "model.npz")):
        console.run(["export", "--model=runs/mine/model", f"--format={form}", f"--output={file}"])
    capsys.readouterr()
    names = [{}, {}]
    for block, own in zip(blocks, names, strict=True):
        exec(compile(block, str(PAGE), "exec"), own)
    assert re.match(r"\['(no|yes)', '(no|yes)'\]\n", capsys.readouterr().out)
    logits = names[1]["call"](
        names[1]["params"],
        **{name: np.asarray(names[0]["asked"][name], np.int32) for name in names[0]["asked"]},
    )["logits"]
    np.testing.assert_allclose(logits, names[0]["logits"], atol=1e-5)
