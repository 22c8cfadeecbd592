"""Channel-wise distillation: where each channel looks."""

from __future__ import annotations

from torch import Tensor

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable, require_equal_widths
from idd_seg.losses.ops.spatial_distributions import spatial_divergence
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_above
from idd_seg.types import Batch, Outputs


def channel_wise(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    r"""Mean over channels of the divergence between the teacher's and the student's distribution over positions.

    .. math:: \frac{T^2}{N C} \sum_{n,c} \mathrm{KL}\big(\mathrm{softmax}_p(t_{nc} / T) \,\|\,
              \mathrm{softmax}_p(s_{nc} / T)\big)

    where the softmax of a channel runs over the positions p of an image; the divergence sums over them.
    C. Shu et al., "Channel-wise knowledge distillation for dense prediction", ICCV 2021.

    Args:
        student: logits or features (N, C, h, w), already in the teacher's width: C is the teacher's.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        temperature: T > 0.

    Returns:
        A scalar in float32; zero for maps of one position.

    Raises:
        ValueError: if the temperature is not positive or the widths differ.
    """
    require_above("temperature", temperature, 0)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    return spatial_divergence(student, teacher, temperature)


class ChannelWise(AdaptedTerm):
    """`channel_wise` of the maps named `tap`; features of another width than the teacher's pass through an adapter.

    Raises:
        ValueError: for a negative weight, a temperature that is not positive, or a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 4.0,
        tap: str = "logits",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule=schedule)
        require_above("temperature", temperature, 0)
        self.temperature = float(temperature)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return channel_wise(*self.maps(student, teacher), temperature=self.temperature)
