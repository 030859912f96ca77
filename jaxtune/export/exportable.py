"""Whether a folder can be exported to a format, before any weight is loaded."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.export import adapter_folder, peft
from jaxtune.export.graphs.registry import GRAPHS
from jaxtune.export.model_folder import read_card
from jaxtune.export.sentence_folder import source_with_head
from jaxtune.io.json_files import read_json_object
from jaxtune.models.choice import is_choice
from jaxtune.models.pooling import POOLING_HEADS


def check_exportable(folder: Path, kind: str) -> None:
    """Refuses what the format cannot hold.

    Args:
      folder: of a model.
      kind: the format.

    Raises:
      UserError: an adapter, what a strategy has added that is in no matrix of the model, or a
        family without a graph.
    """
    if (folder / peft.CONFIG).exists():
        _check_adapter(folder, kind)
        return
    card = read_card(folder)
    source, head = source_with_head(folder, card)
    family, own = source.family.model_type, card.get("head")
    if kind != "stablehlo" and head in POOLING_HEADS:
        raise UserError(
            f"{folder} is a model of embeddings, of which there is no ONNX graph."
            " --format=stablehlo takes it."
        )
    if kind != "stablehlo" and own is not None:
        raise UserError(
            f"{folder} has a head of a person's own, {own}, of which there is no ONNX graph."
            " --format=stablehlo takes it."
        )
    if kind != "stablehlo" and is_choice(read_json_object(folder / "config.json")):
        raise UserError(
            f"{folder} is a model of multiple choice, of which there is no ONNX graph."
            " --format=stablehlo takes it."
        )
    if kind != "stablehlo" and family not in GRAPHS:
        raise UserError(
            f"{folder}: {family} has no ONNX graph; {', '.join(GRAPHS)} have one."
            " --format=stablehlo takes every family."
        )


def _check_adapter(folder: Path, kind: str) -> None:
    own = read_json_object(folder / peft.CONFIG).get("peft_type") == adapter_folder.OWN
    if not own:
        raise UserError(
            f"{folder} holds an adapter and not the model: expected the folder model/ of its run,"
            " where it is merged."
        )
    if kind != "stablehlo":
        raise UserError(
            f"{folder} holds a model with parts that its strategy has added, which no ONNX graph"
            " has. --format=stablehlo takes them."
        )
