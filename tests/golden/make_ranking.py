"""Writes groups/ranking.json: scores and grades of passages, and what pytrec_eval says of them.

pip install pytrec-eval-terrier
python -P tests/golden/make_ranking.py  # or the folder peft here is taken for the package
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytrec_eval

OUT = Path(__file__).parent / "groups"
QUERIES = 14


def main():
    rng = np.random.default_rng(7)
    queries = []
    for q in range(QUERIES):
        size = int(rng.integers(1, 40))
        grades = rng.integers(0, 4, size) * (rng.random(size) < 0.4) * (q != 2)
        # Equal scores too, as trec_eval orders by score and then by the name, the last first.
        scores = (rng.integers(0, 24, size) / 16 - 0.5).astype(np.float32)
        queries.append({"scores": scores.tolist(), "grades": grades.tolist()})
    names = [[f"d{place:03}" for place in range(len(q["grades"]))] for q in queries]
    judged = {
        f"q{i}": dict(zip(own, q["grades"], strict=True))
        for i, (own, q) in enumerate(zip(names, queries, strict=True))
    }
    run = {
        f"q{i}": dict(zip(own, q["scores"], strict=True))
        for i, (own, q) in enumerate(zip(names, queries, strict=True))
    }
    ten = {q: {name: score for score, name in _best(found)} for q, found in run.items()}
    of_all = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut_10", "map"}).evaluate(run)
    of_ten = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(ten)
    scores = {
        "ndcg@10": float(np.mean([of_all[q]["ndcg_cut_10"] for q in judged])),
        "map": float(np.mean([of_all[q]["map"] for q in judged])),
        "mrr@10": float(np.mean([of_ten[q]["recip_rank"] for q in judged])),
    }
    by = {"pytrec-eval-terrier": metadata.version("pytrec-eval-terrier")}
    whole = {"by": by, "queries": queries, "scores": scores}
    (OUT / "ranking.json").write_text(json.dumps(whole) + "\n")


def _best(found):
    return sorted(((score, name) for name, score in found.items()), reverse=True)[:10]


if __name__ == "__main__":
    main()
