"""Writes groups/losses.json: losses of embeddings and their gradients, by sentence-transformers.

    pip install torch sentence-transformers
    python -P tests/golden/make_groups.py  # or the folder peft here is taken for the package

Torch computes in float64, of embeddings that are rounded to float32 first.
"""

import json
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import losses as st
from sentence_transformers.util import cos_sim

OUT = Path(__file__).parent / "groups"
GROUPS, MEMBERS, WIDTH = 7, 4, 6


class Given(torch.nn.Module):
    """Stands for a model: its features are embeddings already."""

    def forward(self, features):
        return {"sentence_embedding": features["x"]}

    def get_embedding_dimension(self):
        return WIDTH


def value_and_gradient(loss, x, members, labels):
    """Of embeddings [g m d], of which the first so many members are read."""
    x = torch.tensor(x, requires_grad=True)
    found = loss([{"x": x[:, i]} for i in range(members)], labels)
    found.backward()
    return {"loss": float(found), "gradient": x.grad.tolist()}


def main():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(GROUPS, MEMBERS, WIDTH)).astype(np.float32).astype(np.float64)
    scores = np.array([0.5, 1.0, 0.25, 0.5, -0.5, 0.0, 0.75])
    labels, model = torch.tensor(scores), Given()
    ranking = st.MultipleNegativesRankingLoss(model, scale=20.0, similarity_fct=cos_sim)
    mild = st.MultipleNegativesRankingLoss(model, scale=7.0, similarity_fct=cos_sim)
    cosent = st.CoSENTLoss(model, scale=20.0)
    triplet = st.TripletLoss(model, triplet_margin=1.0)
    nested = st.MatryoshkaLoss(model, cosent, [6, 3, 2])
    found = {
        "ranking": value_and_gradient(ranking, x, 2, None),
        "ranking, negatives": value_and_gradient(ranking, x, 4, None),
        "ranking, scale 7": value_and_gradient(mild, x, 3, None),
        "cosent": value_and_gradient(cosent, x, 2, labels),
        "cosine_error": value_and_gradient(st.CosineSimilarityLoss(model), x, 2, labels),
        "triplet": value_and_gradient(triplet, x, 3, None),
        "matryoshka": value_and_gradient(nested, x, 2, labels),
    }
    by = {"sentence_transformers": sentence_transformers.__version__, "torch": torch.__version__}
    OUT.mkdir(exist_ok=True)
    whole = {"by": by, "embeddings": x.tolist(), "scores": scores.tolist(), "losses": found}
    (OUT / "losses.json").write_text(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()
