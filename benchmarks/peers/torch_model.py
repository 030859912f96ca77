"""The model of a job on torch, for the workers that train it.

torch multiplies float32 matrices on a CPU by MKL, which takes its slower AVX2 kernels on processors
that are not Intel's. There a library that says otherwise doubles the rate; build it with `gcc
-shared -fPIC -o mkl.so` from `int mkl_serv_intel_cpu_true(void) { return 1; }` and pass
`--env torch.LD_PRELOAD=$PWD/mkl.so` to benchmarks/throughput.py.
"""
# pyright: reportMissingImports=false

import os
from typing import Any

import torch
from protocol import Job
from transformers import AutoConfig, AutoModelForSequenceClassification


def load(job: Job, num_labels: int, attention: str = "sdpa") -> Any:
    """A classifier in float32; what the strategy does not train needs no gradient.

    Args:
      job: names the folder and the strategy.
      num_labels: classes.
      attention: transformers' name of the implementation.
    """
    torch.manual_seed(0)
    if job.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    config = AutoConfig.from_pretrained(job.model, num_labels=num_labels)
    kind: Any = AutoModelForSequenceClassification
    if job.from_scratch:
        model = kind.from_config(config, attn_implementation=attention)
    else:
        model = kind.from_pretrained(job.model, config=config, attn_implementation=attention)
    model.float()
    freeze(model, job)
    return model


def freeze(model: Any, job: Job) -> None:
    """Marks what the strategy does not train."""
    if job.strategy == "full":
        return
    model.requires_grad_(False)
    parts = [model.classifier]
    if job.strategy == "last_layers":
        parts += [*model.bert.encoder.layer[-job.num_layers :], model.bert.pooler]
    for part in parts:
        part.requires_grad_(True)


def trainable(model: Any) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def device_bytes(job: Job) -> int | None:
    """The most memory of the device that was in use so far; None on a CPU."""
    return None if job.device == "cpu" else torch.cuda.max_memory_allocated()
