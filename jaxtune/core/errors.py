"""The one exception that a person's mistake raises, and the nearest-name hint it carries."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message names where, what was found, what was expected, and the remedy.

    What a message quotes may be anything: characters that a terminal obeys are escaped, and of a
    long message the middle is left out. The command line prints the message alone and exits with
    status 2; a library user gets an ordinary exception.
    """

    def __init__(self, message: str) -> None:
        """Takes the message, whatever is quoted in it."""
        message = _cut(message)
        if not message.isprintable():  # an escaped character takes more than one
            message = _cut("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))
        super().__init__(message)


_KEPT = (500, 400)
"""Characters from the beginning and from the end of a long message."""


def _cut(message: str) -> str:
    if len(message) <= sum(_KEPT):
        return message
    return f"{message[: _KEPT[0]]} [...] {message[-_KEPT[1] :]}"


_MEANT = {
    **{"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size", "optim": "optimizer"},
    **{"epochs": "num_epochs", "steps": "num_steps", "max_steps": "num_steps"},
    **{"warmup_ratio": "warmup_fraction", "max_grad_norm": "clip_norm"},
    **{"max_seq_length": "max_length", "max_len": "max_length", "model_name": "path"},
    **{"gradient_accumulation_steps": "num_microbatches", "r": "rank", "acc": "accuracy"},
    **{"early_stopping_patience": "patience", "metric_for_best_model": "best_metric"},
    **{"ner": "token_classification", "sequence_classification": "classification"},
    **{
        "qa": "question_answering",
        "clm": "causal_lm",
        "mcq": "multiple_choice",
        "mlm": "masked_lm",
        "norm": "layernorm",
    },
    **{"cross_encoder": "reranking", "mcq": "multiple_choice"},
    **{"linear_probe": "head", "fp32": "float32", "bf16": "bfloat16"},
}
"""What papers and other tools call what jaxtune has under another name."""


def find_nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names that may be meant by `name`, best first.

    Those that `find_meant` finds; else those most like it, or those that it is a whole word of.
    """
    spellings, asked = {_spell(own): own for own in known}, _spell(name)
    alike = difflib.get_close_matches(asked, list(spellings), n=limit, cutoff=0.5)
    words = [n for n in spellings if asked in n.split("_")]
    found = find_meant(name, spellings.values()) or [spellings[n] for n in alike or words]
    return found[:limit]


def find_meant(name: str, known: Iterable[str]) -> list[str]:
    """The known names that differ from it in upper case or `-`, or are what others call so."""
    asked = _spell(name)
    return [own for own in known if _spell(own) in (asked, _MEANT.get(asked))]


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Returns ` Nearest: a, b.` for what `find_nearest` finds, or an empty string."""
    matches = find_nearest(name, known, limit)
    return f" Nearest: {', '.join(matches)}." if matches else ""


def _spell(name: str) -> str:
    """A name in the letters that settings have."""
    return name.strip().casefold().replace("-", "_")
