"""The teacher of a latency table: a table of another teacher must not decide about this one's students.

Latencies depend on the lengths that the teacher's tokenizer gives, sizes on its vocabulary, and every ratio on its latency.
"""

from kdnas.errors import UsageError
from kdnas.models.parts import Shape
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher
from kdnas.store.progress import say

DIGITS = 10  # shown of a digest


def is_of_other_teacher(table: LatencyTable, teacher: Teacher) -> bool:
    """Whether a table was measured with another teacher; False if the table does not say.

    A table of a shape without weights fits every teacher of this shape.
    """
    if table.teacher in ("", teacher.digest):
        return False
    return table.teacher_has_weights or table.teacher_shape != teacher.sizes


def require_teacher(table: LatencyTable, teacher: Teacher, allow: bool, what: str) -> None:
    """Reject a table of another teacher, or only warn of it if it is allowed; warn if the table does not name its teacher.

    Args:
        table: the latency table.
        teacher: the teacher whose students are wanted.
        allow: the user allowed another teacher.
        what: the command, for messages.

    Raises:
        UsageError: the table was measured with another teacher, and this is not allowed.
    """
    measure = f"`kdnas latency-table --teacher {teacher.spec}` measures a table for this teacher"
    if not table.teacher:
        say(f"{what}: the latency table does not say with which teacher it was measured; {measure}")
        return
    if not is_of_other_teacher(table, teacher):
        return
    theirs = _text(table.teacher_spec, table.teacher_shape, table.teacher)
    ours = _text(teacher.spec, teacher.sizes, teacher.digest)
    message = f"the latency table was measured with {theirs}; the teacher is {ours}"
    if allow:
        say(f"{what}: {message}: its latencies, sizes and ratios are not those of this teacher's students")
        return
    raise UsageError(
        f"{message}: {measure}; or give the table's teacher with --teacher, or use the table all the same with "
        "--allow-other-teacher true"
    )


def _text(spec: str, shape: Shape | None, digest: str) -> str:
    sizes = f"{shape.name}, vocabulary {shape.vocabulary}, " if shape else ""
    return f"{repr(spec) + ' ' if spec else 'another teacher '}({sizes}digest {digest[:DIGITS]})"
