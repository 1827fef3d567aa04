"""Mapping of student layers to the teacher layers that they learn from (arXiv 2303.09639, Eq. 2)."""

from enum import Enum

from kdnas.errors import UsageError


class Mapping(Enum):
    """How student layers are assigned to teacher layers; `uniform+last` is the published choice."""

    LAST_1 = "last-1"
    LAST = "last"
    UNIFORM = "uniform"
    UNIFORM_LAST = "uniform+last"


def layer_pairs(student_layers: int, teacher_layers: int, mapping: Mapping) -> list[tuple[int, int]]:
    """Pairs (student layer, teacher layer), both 1-based, by student layer, without repeats.

    `uniform` is floor((i - 1) * L_T / L_S) + 1. The paper's formula with `ceil` exceeds the teacher's layers at 10 student
    layers; both agree at 3, 4, 6 and 12 of 12 layers. `last` is i + L_T - L_S. `last-1` is one pair, the last layers
    (arXiv 2303.09639, Appendix A). `uniform+last` combines `uniform` and `last`, so a student layer learns from up to two
    teacher layers.

    Args:
        student_layers: number of student layers, L_S.
        teacher_layers: number of teacher layers, L_T.
        mapping: name of the formula.

    Raises:
        UsageError: the student is deeper than its teacher.
    """
    require_no_deeper(student_layers, teacher_layers)
    if mapping is Mapping.LAST_1:
        return [(student_layers, teacher_layers)]
    pairs: list[tuple[int, int]] = []
    for layer in range(1, student_layers + 1):
        uniform = (layer - 1) * teacher_layers // student_layers + 1
        last = layer + teacher_layers - student_layers
        targets = {Mapping.LAST: (last,), Mapping.UNIFORM: (uniform,), Mapping.UNIFORM_LAST: (uniform, last)}[mapping]
        pairs += [(layer, target) for target in dict.fromkeys(targets)]
    return pairs


def require_no_deeper(student_layers: int, teacher_layers: int) -> None:
    """Raise UsageError if the student has more layers than its teacher, because no mapping is defined for that."""
    if student_layers > teacher_layers:
        raise UsageError(
            f"the student has {student_layers} layers, its teacher {teacher_layers}: a student deeper than its teacher "
            f"cannot be distilled layer by layer; use at most {teacher_layers} layers or a deeper teacher"
        )
