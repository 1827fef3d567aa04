"""MiniLM-v2 alone: a new student that was not distilled by hidden states before."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from transformers import AutoModel

from kdnas.distill.options import RefineOptions
from kdnas.distill.run import refine, run_refine_new
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON

REFINE = RefineOptions(**COMMON, hidden_state_weight=0)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["random", "layers"])
def test_minilm_trains_a_new_student_alone(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, start: Literal["random", "layers"]
) -> None:
    artifact = run_refine_new(tmp_path, tiny_teacher, corpus, ARCH, replace(REFINE, start=start, dropout=False))
    assert (artifact.results["arch"], artifact.results["objective"]) == (str(ARCH), "minilm-v2")
    assert "student" not in artifact.manifest["inputs"]
    rows = [row for row in read_jsonl(artifact.path / "history.jsonl") if row["kind"] == "validation"]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    model = AutoModel.from_pretrained(artifact.path / "student", add_pooling_layer=False)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (ARCH.layers, ARCH.hidden)


def test_refinement_needs_either_a_student_or_an_architecture(tmp_path: Path, tiny_teacher: Teacher) -> None:
    wrong: list[dict[str, Any]] = [{}, {"arch": str(ARCH), "student": tiny_teacher.path}]
    for both in wrong:
        with pytest.raises(UsageError, match=r"give --student to refine a distilled student, or --arch .*not both"):
            refine(REFINE, **both, home=tmp_path)
    with pytest.raises(UsageError, match="student has 10 layers, its teacher 6"):
        refine(REFINE, arch="10,12,288,384,gelu", home=tmp_path)
    assert not list(tmp_path.iterdir())
