"""Exact match and F1 of predictions by the definition of SQuAD's own evaluation scripts.

It shares no code with jaxtune and needs nothing but Python, so it checks what a run reports:

    python -m jaxtune.predict --model=runs/squad/model --input=dev-v2.0.json --output=answers.jsonl
    python benchmarks/squad_scores.py --predictions=answers.jsonl --data=dev-v2.0.json

A question without a prediction counts as answered wrongly.
"""

import argparse
import json
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def main() -> None:
    """Prints the scores in percent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--predictions", required=True, help="JSON lines with id and answer")
    parser.add_argument("--data", required=True, help="SQuAD JSON, version 1.1 or 2.0")
    arguments = parser.parse_args()
    lines = Path(arguments.predictions).read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line.strip()]
    predictions = {str(record["id"]): record["answer"] for record in records}
    questions = read_questions(json.loads(Path(arguments.data).read_text(encoding="utf-8-sig")))
    for name, value in evaluate(questions, predictions).items():
        print(f"{name:15} {value:8.4f}" if isinstance(value, float) else f"{name:15} {value:8d}")


def read_questions(squad: dict[str, Any]) -> dict[str, list[str]]:
    """The right answers of each question by its id."""
    return {
        str(qa["id"]): [answer["text"] for answer in qa.get("answers", [])]
        for article in squad["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    }


def evaluate(questions: dict[str, list[str]], predictions: dict[str, str]) -> dict[str, Any]:
    """Scores of all questions, and of those with and without an answer where both occur."""
    exact: dict[str, float] = {}
    f1: dict[str, float] = {}
    for name, answers in questions.items():
        golds = [answer for answer in answers if tokens(answer)] or [""]
        if name in predictions:
            found = predictions[name]
            exact[name] = max(float(tokens(gold) == tokens(found)) for gold in golds)
            f1[name] = max(token_f1(tokens(gold), tokens(found)) for gold in golds)
        else:
            exact[name] = f1[name] = 0.0
    groups = {"": list(questions)}
    kinds = {
        "HasAns_": [name for name, answers in questions.items() if answers],
        "NoAns_": [name for name, answers in questions.items() if not answers],
    }
    if all(kinds.values()):
        groups |= kinds
    scores: dict[str, Any] = {}
    for prefix, names in groups.items():
        scores[f"{prefix}exact"] = 100 * sum(exact[name] for name in names) / len(names)
        scores[f"{prefix}f1"] = 100 * sum(f1[name] for name in names) / len(names)
        scores[f"{prefix}total"] = len(names)
    return scores | {"missing": sum(name not in predictions for name in questions)}


def tokens(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def token_f1(gold: list[str], found: list[str]) -> float:
    """Harmonic mean of precision and recall of words; of no words, whether both have none."""
    if not gold or not found:
        return float(gold == found)
    common = sum((Counter(gold) & Counter(found)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(gold)
    return 2 * precision * recall / (precision + recall)


if __name__ == "__main__":
    main()
