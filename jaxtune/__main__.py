"""`jaxtune COMMAND`, the console script; `python -m jaxtune COMMAND` does the same."""

import importlib
from typing import NoReturn

from jaxtune import main
from jaxtune.core.errors import UserError, nearest
from jaxtune.run.cli import start_command

_MODES = {"train": "train", "evaluate": "eval", "lr-find": "lr_find", "plan": "plan"}
_MODULES = {
    "new": "jaxtune.commands.new",
    "predict": "jaxtune.predict",
    "export": "jaxtune.commands.export",
    "report": "jaxtune.commands.report",
    "push": "jaxtune.commands.push",
    "compare": "jaxtune.commands.compare",
    "sweep": "jaxtune.commands.sweep",
    "generate": "jaxtune.commands.generate",
    "serve": "jaxtune.commands.serve",
}
"""Where `main(argv, prog)` of each other command is."""

_MEANINGS = {
    "new": "looks at data of your own and writes a config for it",
    "train": "trains a model, or goes on with a run that was interrupted",
    "predict": "labels new data with a saved model",
    "evaluate": "scores a saved model on labelled data",
    "lr-find": "looks for a learning rate",
    "plan": "tells what a run would need of devices that are not here",
    "export": "writes a saved model as StableHLO or ONNX, in float32 or int8",
    "report": "makes the report of a finished run anew",
    "push": "sends a model folder to a hub",
    "compare": "puts finished runs into one table, and tests their differences",
    "sweep": "looks for the best settings in many short runs",
    "generate": "writes texts after prompts with a causal language model",
    "serve": "answers requests over HTTP with a saved model",
}


def run(argv: list[str]) -> None:
    """Runs the command that the first word names.

    Args:
      argv: without the program's name.

    Raises:
      UserError: there is no such command, or what the command raises.
    """
    name, *rest = argv or [""]
    if name in _MODULES:
        importlib.import_module(_MODULES[name]).main(rest, f"jaxtune {name}")
    elif name in _MODES:
        main.main(rest, f"jaxtune {name}", _MODES[name])
    elif name in ("-h", "--help"):
        from jaxtune.run.settings_table import settings_table

        print("\n".join(["usage: jaxtune COMMAND [flags]", "", *_lines(), "", settings_table()]))
    elif name == "--version" or name.startswith("--help."):
        main.main([name])
    else:
        known = ", ".join(_MEANINGS)
        asked = f"there is no {name!r}" if name else "a command is missing"
        raise UserError(f"jaxtune: {asked}; expected {known}.{nearest(name, _MEANINGS)}")


def start() -> NoReturn:
    """What the console script calls."""
    start_command(run)


def _lines() -> list[str]:
    """The commands with their meanings, and what else there is."""
    listed = [f"  jaxtune {name:10}{meaning}" for name, meaning in _MEANINGS.items()]
    return [
        *listed,
        "",
        "  jaxtune COMMAND --help   its flags",
        "  jaxtune --help.tuning    the settings of one section",
        "  jaxtune --version",
    ]


if __name__ == "__main__":
    start()
