"""Shared by the commands: errors as one message, and no chatter from libraries."""

import gc
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jaxtune.core.errors import UserError
from jaxtune.run.huge_pages import restart_with_huge_pages

_OUT_OF_MEMORY = (
    "out of memory. Make train.batch_size smaller, or train.num_microbatches larger; see"
    " train.gradient_checkpointing and precision.frozen_dtype; for prediction, --batch_size. What"
    " a run has saved is kept, and the same command goes on from there."
)
_PIPE_CLOSED = 128 + 13  # as a shell tells SIGPIPE
_FEWEST_NEW_OBJECTS = 50_000  # Python's own 700 spends a tenth of the start on looking for garbage


def start_command(main: Callable[[list[str]], None]) -> NoReturn:
    """Runs a command as the whole of this process."""
    restart_with_huge_pages()
    gc.set_threshold(_FEWEST_NEW_OBJECTS)
    signal.signal(signal.SIGINT, _end)
    threading.excepthook = _drop_orbax
    try:
        status = run_command(main, sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        status = _PIPE_CLOSED
    gc.freeze()  # the end need not look through all that was imported and traced for garbage
    sys.exit(status)


def _end(signum: int, frame: Any) -> NoReturn:
    """Ends the process at once: no thread that writes or computes is waited for."""
    del signum, frame
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(130)


def run_command(main: Callable[[list[str]], None], argv: list[str]) -> int:
    """Runs a command and returns its exit status; a mistake of the person's is one message."""
    _quiet()
    try:
        main(argv)
    except UserError as error:
        _complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        _complain(f"error: {_OUT_OF_MEMORY}")
        return 1
    return 0


def _complain(text: str) -> None:
    """One line to standard error, which a terminal breaks between words."""
    if sys.stderr.isatty():
        from jaxtune.run.columns import break_words

        text = "\n".join(break_words(text, shutil.get_terminal_size().columns))
    print(text, file=sys.stderr)


def _is_out_of_memory(error: Exception) -> bool:
    """Of the host, or of a device, which JAX tells by the text alone."""
    name = type(error).__name__
    told = name in ("JaxRuntimeError", "XlaRuntimeError") and "RESOURCE_EXHAUSTED" in str(error)
    return told or isinstance(error, MemoryError)


def token_folder(say: Callable[[str], Any]) -> Path | None:
    """Where the commands keep tokens from run to run; None, and why, where they cannot."""
    from jaxtune.io.cache_folder import private_folder

    try:
        return private_folder("tokens")
    except UserError as error:
        say(f"tokens are not kept for the next run: {error}")
        return None


def _drop_orbax(found: threading.ExceptHookArgs) -> None:
    """Leaves out the tracebacks of Orbax's threads, whose errors reach the main one too."""
    frames = traceback.extract_tb(found.exc_traceback)
    if not any("orbax" in frame.filename for frame in frames):
        threading.__excepthook__(found)


def _quiet() -> None:
    """Drops what libraries say that nobody here can act on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises as well
    warnings.filterwarnings("ignore", module=r"(orbax|flax|transformers|huggingface_hub)\b")
    # A program that cannot be read from the cache, or written to it, is compiled as ever.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
