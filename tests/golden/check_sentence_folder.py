"""Checks that sentence-transformers loads a model folder that jaxtune wrote, and embeds alike.

Run by hand where sentence-transformers is installed; jaxtune itself is not imported:

    jaxtune predict --model=DIR --input=texts.txt --output=embeddings.jsonl
    python -P tests/golden/check_sentence_folder.py DIR texts.txt embeddings.jsonl

texts.txt has one text a line. Fails, with exit code 1, where a vector differs by more than 1e-5, or
the folder says something else of norm, length or prompts than jaxtune.json. `--save=DIR` writes the
folder anew, as this release of sentence-transformers does.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
from sentence_transformers import SentenceTransformer


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("folder", "texts", "embeddings"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--save", type=Path)
    typed = parser.parse_args()
    model = SentenceTransformer(str(typed.folder), device="cpu")
    texts = typed.texts.read_text(encoding="utf-8").splitlines()
    ours = np.array([json.loads(line)["embedding"] for line in typed.embeddings.open()])
    theirs = model.encode(texts, batch_size=16, show_progress_bar=False).astype(np.float64)
    gap = float(np.abs(ours - theirs).max())
    card = json.loads((typed.folder / "jaxtune.json").read_text())
    names = [type(module).__name__ for module in model]
    prompts = {name: text for name, text in model.prompts.items() if text}
    wanted = {"query": card["query_prompt"], "document": card["document_prompt"]}
    same = {
        "vectors": gap <= 1e-5,
        "normalize": (names[-1] == "Normalize") == card["normalize"],
        "max_length": model.max_seq_length == card["max_length"],
        "prompts": prompts == {name: text for name, text in wanted.items() if text},
    }
    print(sentence_transformers.__version__, names, f"largest difference {gap:.1e}", same)
    if typed.save:
        model.save(str(typed.save))
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
