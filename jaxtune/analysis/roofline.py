"""The time that a compiled program would take by what its kernels move and compute.

Each kernel takes as long as the slower of its products and its bytes, and a launch; messages take
as long as a ring takes, and are not overlapped with kernels. A kernel that reaches neither rate
takes longer, and an operand that stays in a cache takes less: benchmarks/RESULTS.md says how far
off this was on a card. A message among no more devices than are near each other is taken to stay
among these.

Source: Williams, Waterman and Patterson 2009, Roofline: An Insightful Visual Performance Model.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jaxtune.analysis.kernels import Kernel, Launched
from jaxtune.analysis.messages import Collective
from jaxtune.analysis.targets import Chip


class Roofline(NamedTuple):
    """Of one device.

    Attributes:
      kernels: launched, messages not among them.
      num_bytes: that they move.
      flops: of their products.
      busy: seconds of kernels.
      launching: seconds that they take beside that.
      sending: seconds of messages.
    """

    kernels: int
    num_bytes: int
    flops: float
    busy: float
    launching: float
    sending: float

    @property
    def seconds(self) -> float:
        """In all."""
        return self.busy + self.launching + self.sending


def roofline(found: Launched, chip: Chip) -> Roofline:
    """The time of one call of a program.

    Args:
      found: what it launches.
      chip: that runs it.
    """
    kernels = found.kernels
    count = sum(one.launches for one in kernels)
    return Roofline(
        kernels=count,
        num_bytes=sum(one.num_bytes * one.launches for one in kernels),
        flops=sum(one.flops * one.launches for one in kernels),
        busy=sum(kernel_seconds(one, chip) * one.launches for one in kernels),
        launching=(count + len(found.sent)) * chip.launch,
        sending=sum(message_seconds(one, chip) for one in found.sent),
    )


def kernel_seconds(kernel: Kernel, chip: Chip) -> float:
    """Of one launch; products of a dtype that the chip has no rate for are at that of float32."""
    rate = chip.peak.get(kernel.dtype, chip.peak["f32"])
    return max(kernel.flops / rate, kernel.num_bytes / chip.bandwidth)


def message_seconds(message: Collective, chip: Chip) -> float:
    """Of one collective in a ring, as fast as its slowest link; no latency."""
    is_near = not chip.near or message.group <= chip.near
    return message.wire_bytes / (chip.link if is_near else chip.far_link)


def by_kind(kernels: Iterable[Kernel]) -> dict[str, tuple[int, int]]:
    """(launches, bytes) of each kind of kernel, most bytes first."""
    found: dict[str, tuple[int, int]] = {}
    for one in kernels:
        count, num_bytes = found.get(one.kind, (0, 0))
        found[one.kind] = count + one.launches, num_bytes + one.num_bytes * one.launches
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))
