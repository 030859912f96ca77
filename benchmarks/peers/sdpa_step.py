"""Worker: a training step of ModernBERT or BERT on torch, for benchmarks/growth_attention.py.

Scaled dot-product attention and fused AdamW; the model is drawn at random.
"""
# pyright: reportMissingImports=false

import json
import statistics
import sys
import threading
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Prints the most memory of a step beyond what is there between steps, and tokens a second."""
    family, layers, width, heads, rows, tokens, timed = json.loads(sys.argv[1])
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    sizes |= {"num_labels": 4, "max_position_embeddings": max(tokens, 512)}
    if family == "bert":
        config = BertConfig(intermediate_size=4 * width, **sizes)
    else:
        config = ModernBertConfig(intermediate_size=3 * width // 2, **sizes)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = {
        "input_ids": torch.randint(5, 1000, (rows, tokens)),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.int64),
        "labels": torch.randint(0, 4, (rows,)),
    }

    def step() -> float:
        start = time.perf_counter()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return time.perf_counter() - start

    short = {name: value[:, :8] if value.ndim == 2 else value for name, value in batch.items()}
    model(**short).loss.backward()  # the gradients are there from here on
    optimizer.step()
    base, peak, ended = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = [step() for _ in range(1 + timed)][1:]
    ended.set()
    watcher.join()
    speed = rows * tokens / statistics.median(seconds)
    print(json.dumps({"temporaries": (peak - base) / 1e6, "speed": speed}))


if __name__ == "__main__":
    main()
