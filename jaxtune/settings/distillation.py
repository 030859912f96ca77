"""Settings of a teacher: a trained model whose outputs are learnt too."""

import dataclasses
from typing import Annotated

from annotated_types import Interval

from jaxtune.settings.fields import Amount, Positive


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """What is learnt from a teacher, beside the labels.

    Attributes:
      teacher: a folder or hub id of a model of the same task and classes, whose outputs for the
        training rows are computed once and learnt too; None for none.
      teacher_sha256: expected digest of its weight files.
      temperature: that logits of teacher and student are divided by; the loss is multiplied with
        its square. Of regressions it is not read.
      alpha: share of the teacher's outputs in the loss; the labels have the rest.
      hidden_weight: of the mean squared error between hidden states of student and teacher, which
        is added to the loss.
      layer_map: `STUDENT=TEACHER` for each hidden state that is compared, such as `1=2,3=6`: i is
        the output of the i-th layer, 0 that of the embeddings; `()` spreads the student's layers
        evenly over the teacher's.
    """

    teacher: str | None = None
    teacher_sha256: str | None = None
    temperature: Positive = 2.0
    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.5
    hidden_weight: Amount = 0.0
    layer_map: tuple[str, ...] = ()
