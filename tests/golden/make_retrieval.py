"""Writes groups/retrieval.json: rankings with ties, judgements, and pytrec_eval's scores of them.

pip install pytrec-eval-terrier
python -P tests/golden/make_retrieval.py  # or the folder peft here is taken for the package
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytrec_eval

OUT = Path(__file__).parent / "groups"
QUERIES, DOCUMENTS, DEEP = 12, 150, 120
MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    **{f"recall@{k}": f"recall_{k}" for k in (1, 10, 100)},
}


def main():
    rng = np.random.default_rng(3)
    names = [f"d{i}" for i in range(DOCUMENTS)]
    judged, rankings = {}, {}
    for q in range(QUERIES):
        own = rng.choice(names, int(rng.integers(1, 30)), replace=False)
        grades = rng.integers(-1 if q == 1 else 0, 4, len(own))
        judged[f"q{q}"] = dict(zip(own.tolist(), (grades * (q != 0)).tolist(), strict=True))
        # Equal scores too, as trec_eval orders by score and then by the name, the last first.
        scores = (rng.integers(0, 60, DOCUMENTS) / 64).astype(np.float32)
        pairs = sorted(zip(scores.tolist(), names, strict=True), reverse=True)[:DEEP]
        rankings[f"q{q}"] = [[name, score] for score, name in pairs]
    run = {q: dict(ranking) for q, ranking in rankings.items()}
    of_all = pytrec_eval.RelevanceEvaluator(judged, {*MEASURES.values()}).evaluate(run)
    ten = {q: dict(ranking[:10]) for q, ranking in rankings.items()}
    of_ten = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(ten)
    scores = {
        name: float(np.mean([of_all[q][measure] for q in judged]))
        for name, measure in MEASURES.items()
    }
    scores["mrr@10"] = float(np.mean([of_ten[q]["recip_rank"] for q in judged]))
    by = {"pytrec-eval-terrier": metadata.version("pytrec-eval-terrier")}
    whole = {"by": by, "judged": judged, "rankings": rankings, "scores": scores}
    (OUT / "retrieval.json").write_text(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()
