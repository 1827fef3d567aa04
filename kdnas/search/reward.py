"""The reward that ranks candidates (arXiv 2303.09639, Eq. 4)."""

from kdnas.errors import UsageError

ALPHA, BETA = -0.06, 0.6


def reward(
    loss: float,
    latency_ms: float,
    teacher_latency_ms: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    above_one: str = "divide",
) -> float:
    """Eq. 4: (1 - L) * (lat(S) / (beta * lat(T))) ** alpha.

    If L > 1, the first factor is negative, and the equation would reward a slow student. There, by default, the latency factor
    divides instead of multiplying, so that the reward always falls with the loss and with the latency. The paper's losses are
    all below 1.

    Args:
        loss: distillation loss L of the student. In the scale `normalised`, 1 - L is the explained variance; of embeddings, 1 - L
            is the mean cosine with the teacher's vectors. The recommended architecture depends on the scale
            (results/search/reward.md).
        latency_ms: the student's latency.
        teacher_latency_ms: the teacher's, from the same table.
        alpha: exponent, at most 0; 0 ignores latency.
        beta: fraction of the teacher's latency at which the latency factor is 1.
        above_one: for L > 1: `divide` as described, or multiply as `printed`.

    Raises:
        UsageError: a latency is not above 0.
    """
    if not (latency_ms > 0 and teacher_latency_ms > 0):
        raise UsageError(
            f"latencies are {latency_ms} ms (student) and {teacher_latency_ms} ms (teacher); both must be above 0"
        )
    kept = 1 - loss
    speed = (latency_ms / (beta * teacher_latency_ms)) ** alpha
    return kept * speed if kept >= 0 or above_one == "printed" else kept / speed
