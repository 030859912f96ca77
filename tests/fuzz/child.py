"""The child of `run.py`: reads one input after the other, and says what came of each."""

import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from readers import READERS, Reader

from jaxtune.core.errors import UserError

_SECONDS = 2.0
_MEMORY = 1 << 30
_MESSAGE = 1200  # characters that no message may exceed: paths of folders are long


class TimeIsUp(BaseException):
    """An input took too long."""


def serve(names: list[str], start: int, count: int, keep: Path | None) -> None:
    """Reads inputs `start` to `count` of the first reader and all of the others."""
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is nobody's outcome
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _stop)
    with tempfile.TemporaryDirectory() as root:
        folders = {name: _warm(READERS[name], Path(root) / name) for name in names}
        _limit_memory()
        for number, name in enumerate(names):
            for i in range(start if number == 0 else 0, count):
                say.write(json.dumps([name]) + "\n")
                say.write(
                    json.dumps([name, *_outcome(READERS[name], name, folders[name], i, keep)])
                    + "\n"
                )


def _warm(reader: Reader, folder: Path) -> Path:
    """Fills the folder, and reads what is sound: all imports and programs are there then."""
    folder.mkdir()
    for name, data in reader.fill().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name in reader.mutated:
        reader.read(folder / name)
    return folder


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _outcome(reader: Reader, name: str, folder: Path, i: int, keep: Path | None) -> tuple[str, str]:
    rng = random.Random(f"{name} {i}")
    file = folder / reader.mutated[i % len(reader.mutated)]
    sound = file.read_bytes()
    data = reader.mutate(rng, sound, [(folder / other).read_bytes() for other in reader.mutated])
    file.write_bytes(data)
    if keep:
        (keep / f"{name}-{i}-{file.name}").write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        reader.read(file)
        found = "read", ""
    except UserError as error:
        text = str(error)
        found = "UserError", ""
        if len(text) > _MESSAGE or not text.isprintable():
            found = "message", f"{len(text)} characters: {text[:300]!r}"
    except TimeIsUp:
        found = "time", _place()
    except MemoryError:
        found = "memory", _place()
    except BaseException as error:
        found = type(error).__name__, f"{str(error)[:200]} {_place()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        file.write_bytes(sound)
    if keep and found[0] in ("read", "UserError"):
        (keep / f"{name}-{i}-{file.name}").unlink()
    return found


def _place() -> str:
    """The innermost lines of jaxtune's own, and the last of all."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [f for f in frames if "jaxtune" in Path(f.filename).parts][-2:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in [*frames[-1:], *own[::-1]])


def _stop(signum: int, frame: object) -> None:
    raise TimeIsUp
