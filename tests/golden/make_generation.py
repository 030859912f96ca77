"""Makes `generation.json`: what transformers on torch writes greedily after ragged prompts.

    pip install torch==2.13.0 transformers==5.24.0
    python tests/golden/make_generation.py

For two random GPT-2 of `families/`: `prompts`; the tokens of their texts, all in one batch, `free`
where no token ends a text, and `ended` where `end` does, without that one; and `margin`, the least
difference of the two largest logits at any token of `free`, to be held against rounding.
"""

import json
from pathlib import Path

import torch
import transformers as t

HERE = Path(__file__).parent
NEW = 10
LENGTHS = (1, 9, 4, 13, 6, 2, 11, 3)


def make(case, seed):
    model = t.GPT2LMHeadModel.from_pretrained(HERE / "families" / case).eval()
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(0, 40, (n,), generator=generator).tolist() for n in LENGTHS]
    width = max(LENGTHS)
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    options = {
        **{"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0},
        **{"output_logits": True, "return_dict_in_generate": True},
    }
    free = model.generate(ids, attention_mask=mask, eos_token_id=None, **options)
    texts = [row[width:].tolist() for row in free.sequences]
    # Half of the texts, as nearly as may be, are to end, and not at their beginning.
    counts = {x: sum(x in text[2:] and x not in text[:2] for text in texts) for x in range(41)}
    end = min(counts, key=lambda x: (abs(counts[x] - len(texts) / 2), x))
    ended = model.generate(ids, attention_mask=mask, eos_token_id=end, **options)
    best = torch.stack(free.logits).topk(2).values  # [n b 2]
    return {
        "prompts": prompts,
        "end": end,
        "free": texts,
        "ended": [before(end, row[width:].tolist()) for row in ended.sequences],
        "margin": float((best[..., 0] - best[..., 1]).min()),
    }


def before(end, tokens):
    return tokens[: tokens.index(end)] if end in tokens else tokens


if __name__ == "__main__":
    found = {case: make(case, seed) for case, seed in (("gpt2-causal_lm", 0), ("gpt2-untied", 1))}
    (HERE / "generation.json").write_text(json.dumps(found) + "\n")
    print(json.dumps(found))
