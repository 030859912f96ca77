"""Which share of an epoch each class has, where it is not that of its rows."""

from jaxtune.run.setup import Run

_SHOWN = 10  # classes, the rarest first


def sampling_rows(run: Run) -> list[tuple[str, str]]:
    """Rows of the table at the start; none where an epoch has each row once."""
    sampling = run.data.stream.sampling
    if sampling is None:
        return []
    total, names = sum(sampling.numbers), run.pretrained.class_names
    sizes = [len(members) for members in sampling.members]
    rarest = sorted((label for label, size in enumerate(sizes) if size), key=sizes.__getitem__)
    told = [
        f"{names[label]} {sampling.numbers[label] / total:.1%} (of the rows"
        f" {sizes[label] / total:.1%})"
        for label in rarest[:_SHOWN]
    ]
    more = f", and {len(rarest) - _SHOWN} more" if len(rarest) > _SHOWN else ""
    power = run.settings.data.splits.class_sampling
    return [("  sampling", f"by class to the power {power:g}: {', '.join(told)}{more}")]
