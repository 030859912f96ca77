"""BERT on WNUT-17: rare and new names in social media (NER).

    python -m jaxtune.main --config=configs/wnut17.py --workdir=runs/wnut17

The data are the three files of the shared task (github.com/leondz/emerging_entities_17), in a
folder of your own: wnut17train.conll, emerging.dev.conll and emerging.test.annotated. Batch, rate
and epochs are from the grid of Devlin et al. 2019, BERT, appendix A.3. Winners of the task had an
entity F1 of 0.42 on the test file (Derczynski et al. 2017, table 4); BERT-base is known to reach
about 0.45. 3,394 texts: two minutes on an accelerator.

all-MiniLM-L6-v2 in its place (--config.model.path=FOLDER --config.optimizer.learning_rate=3e-4)
takes a quarter of an hour on two busy CPU cores; benchmarks/RESULTS.md has its score.
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "token_classification"
    config.model.path = "google-bert/bert-base-cased"
    config.data.path = "./wnut17"
    config.data.text_columns = ("tokens",)
    config.data.label_column = "tags"
    config.data.max_length = 128
    config.optimizer.learning_rate = 5e-5
    config.train.num_epochs = 4
    config.train.batch_size = 16
    return config
