"""The full evaluator: candidates distilled as `kdnas distill` does. Expensive, but it gives their final loss."""

from pathlib import Path

from kdnas.distill.options import DistillOptions
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.search.outcome import ProxyResult
from kdnas.text.corpus import Corpus


class Full:
    """Distils candidates on the whole corpus; each student is a separate artifact, and interrupted work is resumed.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: the training text.
        options: options of the distillation; with `steps`, because `minutes` would give each shape a different budget.
    """

    def __init__(self, home: Path, teacher: Teacher, corpus: Corpus, options: DistillOptions) -> None:
        self._home, self._teacher, self._corpus, self._options = home, teacher, corpus, options

    def __call__(self, arch: Arch) -> ProxyResult:
        """Distil one architecture.

        Raises:
            DivergenceError: its loss is no longer finite.
        """
        from kdnas.distill.run import run_distill

        results = run_distill(self._home, self._teacher, self._corpus, arch, self._options).results
        return ProxyResult(results["validation_loss"], results["tokens"])
