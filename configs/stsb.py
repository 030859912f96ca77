"""BERT-base on STS-B: how alike two sentences are, from 0 to 5 (regression on pairs).

    python -m jaxtune.main --config=configs/stsb.py --workdir=runs/stsb

Batch, rate and epochs are from the grid of Devlin et al. 2019, BERT, appendix A.3, whose BERT-base
has a Spearman correlation of 0.858 on the test split. Small models fit too: all-MiniLM-L6-v2 takes
a quarter of an hour on two CPU cores with --config.model.path=FOLDER.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "regression"
    config.model.path = "google-bert/bert-base-uncased"
    config.data.path = "mteb/stsbenchmark-sts"
    config.data.text_columns = ("sentence1", "sentence2")
    config.data.label_column = "score"
    # The benchmark's original files have no header, and the last two fields only now and then.
    config.data.column_names = (
        "genre",
        "filename",
        "year",
        "id",
        "score",
        "sentence1",
        "sentence2",
        "source1",
        "source2",
    )
    config.data.max_length = 128
    config.optimizer.learning_rate = 5e-5
    config.train.num_epochs = 4
    config.train.batch_size = 16
    return config
