"""Which examples an epoch of a run has, and how they and those of evaluation lie in batches."""

from typing import Any

from jaxtune.data.batching.class_sampling import ClassSampling, choose_sampling
from jaxtune.data.batching.layout import Layout
from jaxtune.data.batching.packing import Use
from jaxtune.models.design import Design
from jaxtune.models.token_costs import program_cost
from jaxtune.run.model_layouts import layouts_for
from jaxtune.run.plan import Plan, steps_between_evaluations
from jaxtune.settings import Settings
from jaxtune.tasks.task import Task, drawn_together


def sampling_of(settings: Settings, train: Any) -> ClassSampling | None:
    """Which training examples an epoch has, where that is not each once."""
    power = settings.data.splits.class_sampling
    return choose_sampling(train.labels, power) if power else None


def choose_layouts(
    settings: Settings,
    task: Task,
    examples: dict[str, Any],
    design: Design,
    plan: Plan,
    sampling: ClassSampling | None,
) -> tuple[Layout, Layout]:
    """Of training and of evaluation. Images are all of one size, whatever the layout."""
    kind = "bucketed" if task.head == "image" else settings.data.tokens.layout
    train, lengths = settings.train, {split: part.lengths for split, part in examples.items()}
    others = [part for split, part in lengths.items() if split != "train"]
    seen = others or [lengths["train"]]
    shares = 1 if plan.sharding is None else plan.sharding.num_shares
    program = program_cost(design)
    evaluations = plan.num_steps // steps_between_evaluations(train, plan.steps_per_epoch)
    choose = layouts_for(design, kind)
    own = lengths["train"]
    layout = choose(
        own if sampling is None else sampling.lengths(own, settings.seed),
        train.batch_size,
        multiple=train.num_microbatches * shares,
        use=Use(
            *(program, 1, plan.num_steps, settings.seed),
            groups=drawn_together(task, examples["train"]),
        ),
    )
    if sampling is not None:  # epochs have other lengths, and are to have as many batches
        layout = layout._replace(caps=None)
    return (
        layout,
        choose(
            seen,
            train.eval_batch_size,
            multiple=shares,
            use=Use(program, repeats=1 + evaluations),
        ),
    )
