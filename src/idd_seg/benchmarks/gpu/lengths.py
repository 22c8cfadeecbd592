"""How many steps of a study fit into a time."""

from __future__ import annotations

from dataclasses import dataclass

SAFE = 0.85  # of the time: a machine is not always as fast as on its first steps
TEACHER = 0.4  # of the time for steps
VALIDATIONS = 4  # of each run
LEAST = 40  # steps, below which a training shows nothing


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a training.

    Attributes:
        teacher, student: a step of each.
        validation: of one look at the held-out pictures.
        start: from the command to the first step, and what follows the last one.
    """

    teacher: float
    student: float
    validation: float
    start: float


def lengths(seconds: float, methods: int, costs: Costs) -> tuple[int, int] | None:
    """Return the steps of the teacher and of each method that fit, in tens; None where too few do.

    Args:
        methods: how many are trained, one after another, each as costly as the one whose `costs` are given.
    """
    fixed = (methods + 1) * (costs.start + VALIDATIONS * costs.validation)
    left = SAFE * seconds - fixed
    steps = (TEACHER * left / costs.teacher, (1 - TEACHER) * left / (methods * costs.student))
    teacher, student = (10 * int(number // 10) for number in steps)
    return (teacher, student) if min(teacher, student) >= LEAST else None
