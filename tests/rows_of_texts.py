"""Batches of random tokens: texts one after the other, or one text a row."""

import itertools

import numpy as np

LENGTH = 75


def texts(layout, rows=2, length=LENGTH, mean=20, seed=0):
    """A batch whose tokens are those of texts one after the other, or of one text a row."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 30, (rows, length)).astype(np.int32)
    if layout != "packed":
        mask = np.ones((rows, length), np.int32)
        mask[0, length - length // 3 :] = layout == "whole"
        if layout == "left":
            mask = mask[:, ::-1]
        return {"input_ids": ids * mask, "attention_mask": mask}
    segments, positions = (np.zeros((rows, length), np.int32) for _ in range(2))
    slots = 1 + length // (mean // 2)
    firsts, lasts = (np.zeros((rows, slots), np.int32) for _ in range(2))
    for row, slot, start, size in spans(rng, rows, length, mean):
        part = slice(start, start + size)
        segments[row, part], positions[row, part] = slot + 1, np.arange(size)
        firsts[row, slot], lasts[row, slot] = start, start + size - 1
    ids = np.where(segments > 0, ids, 0)
    examples = np.arange(rows * slots, dtype=np.int32).reshape(rows, slots)
    return {
        "input_ids": ids,
        "segment_ids": segments,
        "position_ids": positions,
        "first_tokens": firsts,
        "last_tokens": lasts,
        "example_ids": examples,
        "weight": (lasts > 0).astype(np.float32),
    }


def spans(rng, rows, length, mean):
    """(row, slot, start, size) of texts, and room at the end of each row."""
    for row in range(rows):
        start = 0
        for slot in itertools.count():
            size = int(rng.integers(mean // 2, mean * 3 // 2 + 1))
            if start + size > length - 3:
                break
            yield row, slot, start, size
            start += size
