"""A dataset of the Hugging Face hub to one Table per split."""

from typing import TYPE_CHECKING, Any

from jaxtune.core.errors import UserError
from jaxtune.core.extras import check_extra
from jaxtune.data.sources.folder_files import SPLIT_WORDS
from jaxtune.data.sources.parquet import from_arrow
from jaxtune.data.sources.table import Table

if TYPE_CHECKING:
    import datasets


def from_dataset(dataset: "datasets.Dataset", source: str) -> Table:
    """Turns a `datasets.Dataset` into a Table; images and the like stay as they are stored.

    Args:
      dataset: n rows; its ClassLabel features become `class_names`.
      source: The name for messages, `hub-name[split]`.
    """
    arrow = dataset.with_format("arrow")[:]  # Follows select() and shuffle(), decodes nothing.
    features: Any = dataset.features.to_dict()
    return from_arrow(arrow, features, source)


def load_hub(path: str, name: str | None) -> dict[str, Table]:
    """Downloads a dataset, or takes it from the local cache.

    Raises:
      UserError: no such dataset, or without `train`; or the package `datasets` is absent.
    """
    check_extra(
        f"{path} is no file or folder here, and a dataset of the hub", "datasets", "datasets"
    )
    import datasets

    try:
        found = datasets.load_dataset(path, name)
    # Not found, offline, no such configuration, a dataset that is a script: each library below
    # load_dataset raises its own kind, and the person's remedy is the same.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        call = f"datasets.load_dataset({path!r}" + (f", {name!r})" if name else ")")
        raise UserError(
            f"{path}: there is no such file or folder here, and {call} failed with "
            f"{type(error).__name__}: {reason} Check the name and config.data.name; without a "
            "network, give the path of a folder that holds the files of the dataset."
        ) from error
    label = f"{path}/{name}" if name else path
    return {
        split: from_dataset(found[word], f"{label}[{word}]")
        for split, word in _hub_splits(path, list(map(str, found))).items()
    }


def _hub_splits(path: str, found: list[str]) -> dict[str, str]:
    """Split -> its name in a hub dataset."""
    chosen = {
        split: next((word for word in words if word in found), None)
        for split, words in SPLIT_WORDS.items()
    }
    if chosen["train"] is None:
        raise UserError(
            f"{path}: found the splits {', '.join(found)}, but expected one named train. Choose "
            "another configuration with config.data.name, or save the splits as local files."
        )
    return {split: word for split, word in chosen.items() if word}
