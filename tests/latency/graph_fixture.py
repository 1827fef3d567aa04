"""Shared by the tests of rewritten graphs: sizes that differ from every template's, cached templates, and a check of models."""

from pathlib import Path
from typing import Any

import numpy as np

from kdnas.latency.rewriting import PoolPart, WeightPool, part_bytes, table_bytes
from kdnas.latency.template import write_templates
from kdnas.models.arch import Arch

ARCHS = [Arch(3, 4, 48, 96, "relu"), Arch(6, 3, 96, 64, "gelu"), Arch(4, 12, 72, 200, "silu")]
VOCABULARY, POSITIONS = 211, 80


def pool_part(arch: Arch, vocabulary: int = VOCABULARY, positions: int = POSITIONS) -> PoolPart:
    """A pool that is just large enough for one architecture."""
    return WeightPool([part_bytes(arch)], table_bytes(arch.hidden, vocabulary, positions), 0).parts[0]


def templates(family: Path, form: str) -> Path:
    """Exported once per family and form: `write_templates` keeps existing templates."""
    return write_templates(family, form, family / "graphs")


def assert_students_run(models: Any) -> None:
    """Students of several sizes return finite, varying states for sentences of several lengths."""
    for arch in (Arch(3, 2, 288, 384, "relu"), Arch(12, 12, 384, 768, "silu"), Arch(4, 12, 576, 768)):
        run = models.student(arch)
        for length in (2, 30):
            states = run(**models.sentence(length, 0))
            assert states.shape == (1, length, arch.hidden)
            assert np.isfinite(states).all()
            assert states.std() > 0
