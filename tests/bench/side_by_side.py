"""Member-tokens a second of several students side by side, against the same students one after the other.

Run as `python tests/bench/side_by_side.py TEACHER CORPUS "ARCH;ARCH;..." [STEPS [ROUNDS [BATCH_TOKENS]]]`. Each round trains all
students both ways for STEPS updates, in alternating order, and times the training loops alone: no start, no validation but one of
64 sentences before and after. Prints real tokens of all students together a second, and the ratio of each round.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from kdnas.distill.building import settled
from kdnas.distill.loaded_teacher import LoadedTeacher
from kdnas.distill.options import DistillOptions
from kdnas.distill.side_by_side import Together, share_teacher
from kdnas.distill.stages import begin_distillation
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

HOME = Path("artifacts")


def tokens_per_second(
    teacher: Teacher, corpus: Corpus, archs: list[Arch], options: DistillOptions, together: bool
) -> float:
    """Real tokens of all students a second, in one of the two ways."""
    with tempfile.TemporaryDirectory() as root:
        loaded, fittings = LoadedTeacher(teacher, corpus, options), []
        for arch in archs:
            folder = Path(root) / arch.name
            folder.mkdir()
            fittings.append(begin_distillation(folder, HOME, loaded, arch, options).fitting)
        start = time.perf_counter()
        if together:
            share_teacher(loaded, fittings, options.accumulate)
            Together(fittings).train()
        else:
            for fitting in fittings:
                Together([fitting]).train()
        seconds = time.perf_counter() - start
        return sum(fitting.position.tokens for fitting in fittings) / seconds


def main(spec: str, source: str, names: str, steps: int = 20, rounds: int = 3, batch_tokens: int = 1024) -> None:
    """Print the table."""
    teacher = resolve_teacher(spec, HOME)
    corpus = build_corpus(HOME, source, TextOptions(), teacher)
    archs = [Arch.parse(name) for name in names.split(";")]
    options = DistillOptions(
        steps=steps, batch_tokens=batch_tokens, validations=1, validation_sentences=64, checkpoint_seconds=1e6
    )
    options, ratios = settled(options, corpus, teacher), []
    for number in range(rounds):
        rates = {}
        for together in (False, True) if number % 2 == 0 else (True, False):
            rates[together] = tokens_per_second(teacher, corpus, archs, options, together)
        ratios.append(rates[True] / rates[False])
        print(f"{rates[False]:,.0f} one after the other, {rates[True]:,.0f} side by side: {ratios[-1]:.2f}", flush=True)
    print(f"{spec}, {len(archs)} students: {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]; {host_line()}")


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 7:
        sys.exit(__doc__)
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
