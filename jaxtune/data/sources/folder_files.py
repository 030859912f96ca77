"""Which files of a folder hold which split: their names say it."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxtune.core.errors import UserError, nearest
from jaxtune.data.sources.files import LINE_SUFFIXES, SUFFIXES

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": (
        *("validation", "validation_matched", "valid", "val", "dev", "devel", "development"),
        *("eval", "testa"),
    ),
    "test": ("test", "test_matched", "testing", "testb"),
}
"""Split -> the words for it, best first."""

_SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_SHARD = re.compile(r"(?P<base>.+)[-_.](?P<index>\d+)[-_]of[-_](?P<count>\d+)(-[0-9a-f]{8,})?")
_SHOWN = 8


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
      splits: split -> its files in order, as paths below the folder, the same on every machine.
      left: the other files, and folders, which end in `/`; hidden ones are not told of.
    """

    splits: dict[str, list[str]]
    left: list[str]

    def note(self, path: str) -> tuple[str, ...]:
        """What a person is told of the files that are left alone."""
        if not self.left:
            return ()
        more = f" and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
        shown = ", ".join(name[:60] for name in self.left[:_SHOWN])
        return (f"{path}: left alone, as no split has such a name: {shown}{more}",)


def find_splits(
    path: str, root: Path, name: str | None, any_suffix: bool, fits: Callable[[str], bool]
) -> Found | None:
    """The files of each split, or None where there is no train file.

    Args:
      path: as the person gave it, for messages.
      root: the same folder.
      name: a subfolder, if there is one of this name.
      any_suffix: whether files without a known suffix count where no other is a train file.
      fits: whether a file has the columns of the data, asked where several may be one split.

    Raises:
      UserError: the files of a split are ambiguous.
    """
    top = root / name if name and (root / name).is_dir() else root
    here = _files(root, top.glob("*"))
    below: list[str] | None = None
    for known in (True, False) if any_suffix else (True,):
        splits = next(iter(_by_folder(path, _known(here, known)).values()), {})
        if "train" not in splits:
            below = _files(root, top.rglob("*")) if below is None else below
            folders = _by_folder(path, _known(below, known))
            splits = _only_folder(path, folders, name) if folders else {}
        if "train" in splits:
            chosen = {
                split: _parts(path, split, splits[split], fits)
                for split in SPLIT_WORDS
                if split in splits
            }
            return Found(chosen, _left(root, top, chosen, here if below is None else below))
    return None


def no_train_file(path: str, root: Path) -> UserError:
    """The error for a folder in which `find_splits` finds nothing."""
    files = _files(root, root.rglob("*"))
    data = [file for file in files if file.lower().endswith(SUFFIXES)]
    more = f" and {len(data) - _SHOWN} more" if len(data) > _SHOWN else ""
    odd = [file for file in files if file not in {*data} and _split_of(path, file)]
    hint = f" For files such as {odd[0]}, set config.data.format." if odd else ""
    return UserError(
        f"{path}: found no train file among {', '.join(data[:_SHOWN]) or 'no data files'}{more}, "
        f"but expected one whose name holds the word train, with a suffix of "
        f"{', '.join(SUFFIXES)}. Rename it, or give the path of the file itself.{hint}"
    )


def split_of_name(name: str) -> str | None:
    """The split that a name of one word or more, such as `20news-bydate-train`, says."""
    return _split_of(name, name)


def _files(root: Path, entries: Iterable[Path]) -> list[str]:
    """What is no folder among the entries, as sorted paths below `root`, without hidden ones."""
    return sorted(
        file.relative_to(root).as_posix()
        for file in entries
        if not file.is_dir()
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )


def _known(files: list[str], known: bool) -> list[str]:
    """Those with a suffix of data, or all."""
    return [file for file in files if not known or file.lower().endswith(SUFFIXES)]


def _left(root: Path, top: Path, chosen: dict[str, list[str]], files: list[str]) -> list[str]:
    read = {file for parts in chosen.values() for file in parts}
    inner = [entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    folders = {f"{entry.relative_to(root).as_posix()}/" for entry in inner}
    folders = {folder for folder in folders if not any(f.startswith(folder) for f in files)}
    return sorted({*files} - read) + sorted(folders)


def _by_folder(path: str, files: list[str]) -> dict[str, dict[str, list[str]]]:
    """Folder -> split -> those of the files whose names say a split."""
    folders: dict[str, dict[str, list[str]]] = {}
    for file in files:
        split = _split_of(path, file)
        if split:
            folder = PurePosixPath(file).parent.as_posix()
            folders.setdefault(folder, {}).setdefault(split, []).append(file)
    return {
        folder: {split: _tables_first(parts) for split, parts in splits.items()}
        for folder, splits in folders.items()
    }


def _tables_first(files: list[str]) -> list[str]:
    """Without the plain texts where there are tables, beside which they often lie."""
    tables = [file for file in files if not file.lower().endswith(LINE_SUFFIXES)]
    return tables or files


def _only_folder(
    path: str, folders: dict[str, dict[str, list[str]]], name: str | None
) -> dict[str, list[str]]:
    """The splits of the one folder that has a train file; nothing where none has."""
    with_train = [folder for folder, splits in folders.items() if "train" in splits]
    if not with_train:
        return {}
    if len(with_train) > 1:
        hint = f" There is no folder {name!r}.{nearest(name, with_train)}" if name else ""
        raise UserError(
            f"{path}: found train files in several folders: {', '.join(with_train[:_SHOWN])}.{hint}"
            " Set config.data.name to the one to use."
        )
    if len(folders) > 1:
        raise UserError(
            f"{path}: found files of splits in several folders: {', '.join([*folders][:_SHOWN])},"
            f" but only {with_train[0]} has a train file. Set config.data.name to the folder to"
            " use, or put the files of all splits into one folder."
        )
    return folders[with_train[0]]


def _words(file: str) -> list[str]:
    """The words of a file's name, in which a suffix counts that says no format."""
    name = PurePosixPath(file)
    return re.findall(r"[A-Za-z0-9]+", name.stem if file.lower().endswith(SUFFIXES) else name.name)


def _split_of(path: str, file: str) -> str | None:
    """The split whose words the file's name holds: whole words first, then parts of words."""
    words = _words(file)
    # Parts end where letters meet digits or a capital follows a small letter. Any substring would
    # make `latest` a test file and `interval` a validation file.
    parts = [part for word in words for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word)]
    for candidates in (words, parts):
        splits = {_SPLIT_OF_WORD.get(word.lower()) for word in candidates} - {None}
        if len(splits) > 1:
            raise UserError(
                f"{path}: the name of {file} holds words for several splits "
                f"({', '.join(sorted(filter(None, splits)))}), but expected one. Rename the file."
            )
        if splits:
            return splits.pop()
    return None


def _parts(path: str, split: str, files: list[str], fits: Callable[[str], bool]) -> list[str]:
    """The one file of a split, or all its shards in order."""
    if not all(_SHARD.fullmatch(PurePosixPath(file).stem) for file in files):
        files = _likeliest(files, fits)
    shards = [(_SHARD.fullmatch(PurePosixPath(file).stem), file) for file in files]
    kinds = {
        (match and (match["base"], match["count"]), PurePosixPath(file).suffix.lower())
        for match, file in shards
    }
    if len(kinds) > 1 or (len(files) > 1 and shards[0][0] is None):
        raise UserError(
            f"{path}: found several files for the {split} split: {', '.join(files[:_SHOWN])}, but"
            " expected one file, or shards of one format named like train-00000-of-00002.parquet."
            " Remove or rename the others."
        )
    indices = [int(match["index"]) for match, _ in shards if match]
    count = int(shards[0][0]["count"]) if shards[0][0] else 0
    if len(indices) != count or sorted(indices) != list(range(count)):
        raise UserError(
            f"{path}: found {len(files)} of the {count} shards of the {split} split: "
            f"{', '.join(files[:_SHOWN])}. Complete the folder, or rename the files that are there."
        )
    order = sorted(range(len(files)), key=lambda i: indices[i]) if indices else [0]
    return [files[i] for i in order]


def _likeliest(files: list[str], fits: Callable[[str], bool]) -> list[str]:
    """Of several files, MultiNLI's matched one; else those with the columns of the data."""
    matched = [file for file in files if "matched" in map(str.lower, _words(file))]
    files = matched or files
    return [file for file in files if fits(file)] or files if len(files) > 1 else files
