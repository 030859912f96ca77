"""all-MiniLM-L6-v2 on 32 texts of AG News, 8 a class: pairs of them, then a fitted classifier.

    python -m jaxtune.main --config=configs/fewshot.py --workdir=runs/fewshot

One epoch of 768 pairs, about 16 a step, by the recipe of SetFit (Tunstall et al. 2022, Efficient
Few-Shot Learning Without Prompts). About 0.82 on the test, by which 32 texts they are. With a table
of one's own, of which all but some rows, one a class at least, are learnt from:

    --config.data.path=my.csv --config.data.max_train_examples=None --config.data.validation_size=4
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """The recipe."""
    config = default_config()
    config.task = "few_shot"
    config.model.path = "sentence-transformers/all-MiniLM-L6-v2"
    config.data.path = "fancyzhx/ag_news"
    config.data.text_columns = ("text",)
    config.data.label_column = "label"
    config.data.max_length = 256
    config.data.max_train_examples = 32
    config.data.max_eval_examples = 1000
    config.optimizer.learning_rate = 2e-5
    config.optimizer.weight_decay = 0.0
    config.train.num_epochs = 1
    config.train.batch_size = 4  # of groups, which have about four pairs each
    return config
