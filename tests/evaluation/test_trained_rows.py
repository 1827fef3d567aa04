"""Training only the used rows of an embedding table: the same weights as with the whole table, but without its cost."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas.evaluation.encoded import Encoded, load_head
from kdnas.evaluation.finetune import Plan, Recipe, as_run, tune
from kdnas.evaluation.kinds import CLASSES
from kdnas.evaluation.rows import Split
from kdnas.evaluation.suite_options import EmbeddingRows
from kdnas.evaluation.tasks import Task
from kdnas.evaluation.trained_rows import TrainedRows, train_rows, whole_table
from kdnas.evaluation.tuning_state import TuningState
from kdnas.models.teacher import Teacher
from kdnas.store.progress import stage

from ..models.family_fixture import TINY, tiny_model

PLAN = Plan(48, 2, 1, 20)
WORDS = (("terrible", "awful"), ("wonderful", "lovely"))
TABLE = "embeddings.word_embeddings.weight"


def toy(name: str, count: int) -> Split:
    labels = [number % 2 for number in range(count)]
    return Split(
        [f"{name} {number} was {WORDS[label][number // 2 % 2]}" for number, label in enumerate(labels)], labels
    )


TASK = Task("toy", ["bad", "good"], toy("train", 48), toy("garden", 20), toy("other", 20), positive=1)


def tuned(path: Path, rows: EmbeddingRows, folder: Path | None = None) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and dev scores after a few steps."""
    with stage("test", 1) as progress:
        model, record = tune(path, TASK, PLAN, Recipe([2e-3], 0, 16, 128, rows), progress, folder)
    assert record["embedding_rows"] == rows
    return model.state_dict(), record["tried"][0]["dev_scores"]


def table_of(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    (found,) = [value for name, value in weights.items() if name.endswith(TABLE)]
    return found


def used_ids(path: Path) -> list[int]:
    encoded = Encoded.of(CLASSES, TASK.train, path, 16)
    return np.unique(np.concatenate([*encoded.ids, [0]])).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TINY)
def test_the_used_rows_give_the_weights_of_the_whole_table(
    model_type: str, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnas.evaluation.finetune.WEIGHT_DECAY", 0.0)
    path = tiny_model(model_type, teacher, tmp_path).path
    whole, whole_scores = tuned(path, "all")
    used, scores = tuned(path, "used")
    assert scores == whole_scores
    assert used.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(used[name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.slow
def test_weight_decay_leaves_unused_rows_as_they_are(tiny_teacher: Teacher) -> None:
    before = table_of(load_head(tiny_teacher.path, CLASSES, TASK.labels, 0).state_dict())
    whole, used = (table_of(tuned(tiny_teacher.path, rows)[0]) for rows in ("all", "used"))
    trained = torch.zeros(len(before), dtype=torch.bool)
    trained[used_ids(tiny_teacher.path)] = True
    assert torch.equal(used[~trained], before[~trained])
    assert not torch.equal(whole[~trained], before[~trained])
    torch.testing.assert_close(used[trained], whole[trained], atol=1e-6, rtol=0)
    assert not torch.equal(used[trained], before[trained])


@pytest.mark.slow
def test_a_frozen_table_stays_as_it_is(tiny_teacher: Teacher) -> None:
    before = load_head(tiny_teacher.path, CLASSES, TASK.labels, 0).state_dict()
    after, _ = tuned(tiny_teacher.path, "frozen")
    assert torch.equal(table_of(after), table_of(before))
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["used", "frozen"])
def test_a_stopped_fine_tuning_resumes_exactly(
    tiny_teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: EmbeddingRows
) -> None:
    expected, scores = tuned(tiny_teacher.path, rows)
    monkeypatch.setattr("kdnas.evaluation.tuning_state.CHECKPOINT_SECONDS", 0.0)
    add_score = TuningState.add_score

    def stop(*given: object) -> None:
        add_score(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TuningState, "add_score", stop)
        with pytest.raises(KeyboardInterrupt):
            tuned(tiny_teacher.path, rows, tmp_path / "state")
    saved = sum(file.stat().st_size for file in (tmp_path / "state").rglob("best-*.safetensors"))
    table = expected[f"bert.{TABLE}"].nbytes
    whole = (tiny_teacher.path / "model.safetensors").stat().st_size
    assert saved < whole - 0.9 * table  # without the rows that are not trained
    found, again = tuned(tiny_teacher.path, rows, tmp_path / "state")
    assert again == scores
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_cut_table_looks_up_every_row_and_is_merged(tiny_teacher: Teacher) -> None:
    model = load_head(tiny_teacher.path, CLASSES, TASK.labels, 0).eval()
    texts = ["one of the words of no train row", "train 3 was awful"]
    before = CLASSES.predict(as_run(model, CLASSES, tiny_teacher.path, 16), texts)
    train_rows(model, "used", Encoded.of(CLASSES, TASK.train, tiny_teacher.path, 16).ids)
    table = model.get_input_embeddings()
    assert isinstance(table, TrainedRows)
    assert table.weight.shape == (len(used_ids(tiny_teacher.path)), 96)
    assert np.array_equal(CLASSES.predict(as_run(model, CLASSES, tiny_teacher.path, 16), texts), before)
    with torch.no_grad():
        table.weight *= -1.0  # a sum would vanish in the layer norm
    changed = CLASSES.predict(as_run(model, CLASSES, tiny_teacher.path, 16), texts)
    assert not np.allclose(changed[1], before[1])
    whole_table(model)
    assert type(model.get_input_embeddings()) is torch.nn.Embedding
    assert model.get_input_embeddings().weight.requires_grad
    assert np.array_equal(CLASSES.predict(as_run(model, CLASSES, tiny_teacher.path, 16), texts), changed)
