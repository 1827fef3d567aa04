"""Training throughput in bf16 autocast against float32: the same loop, alternating, each time in a new process. Prints JSON.

Run with `python tests/bench/distill_precision.py [ROUNDS]`; on a CPU with AVX512-BF16 the ratio should be at least 2.
"""

import json
import subprocess
import sys
from statistics import median

from kdnas.distill.throughput import OBJECTIVES, measure_tokens_per_second
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import BUILTIN, load_encoder, resolve_teacher
from kdnas.store.host import has_bf16, host_line

ARCH = Arch(4, 12, 576, 768)
BATCH_TOKENS = 4096
SECONDS = 8.0


def measure(objective: str, precision: str) -> float:
    """Tokens per second, in this process."""
    teacher = load_encoder(resolve_teacher(BUILTIN).path)
    student = student_from_teacher(ARCH, teacher, seed=0)
    return measure_tokens_per_second(
        teacher, student, objective, BATCH_TOKENS, SECONDS, seq_len=32, precision=precision
    )


def measure_elsewhere(objective: str, precision: str) -> float:
    """Tokens per second, in a separate process, so that leftover memory of one loop does not slow down the next."""
    command = [sys.executable, __file__, objective, precision]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 1)


def compare(objective: str, rounds: int) -> dict[str, object]:
    """Tokens per second in both precisions and their ratio; each round runs both, in alternating order."""
    speeds: dict[str, list[float]] = {"bf16": [], "f32": []}
    for number in range(rounds):
        for precision in ("bf16", "f32") if number % 2 else ("f32", "bf16"):
            speeds[precision].append(measure_elsewhere(objective, precision))
    ratios = [half / full for half, full in zip(speeds["bf16"], speeds["f32"], strict=True)]
    return {
        "objective": objective,
        "arch": str(ARCH),
        "tokens_per_second": {precision: round(median(values), 1) for precision, values in speeds.items()},
        "ratio": round(median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
        "rounds": speeds,
    }


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(measure(sys.argv[1], sys.argv[2]))
    else:
        wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 5
        rows = [compare(objective, wanted) for objective in OBJECTIVES]
        print(json.dumps({"host": host_line(), "cpu_bf16": has_bf16(), "batch_tokens": BATCH_TOKENS, "rows": rows}))
