"""The folder of a trained student and its model card."""

from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.models.card import inherited, with_metadata
from kdnas.models.folder import model_digest, model_in
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import MANIFEST, Artifact

STAGES = ("distill", "refine")  # stages whose artifact contains a student

METADATA = {"library_name": "transformers", "pipeline_tag": "feature-extraction", "tags": ["distillation", "kdnas"]}
CARD = """# {name}

A text encoder of {parameters_millions:.1f} million parameters: `{arch}` (layers, heads, hidden size, feed-forward size,
activation), distilled with kdnas.

- Teacher: `{teacher}`
- Corpus: `{corpus}`
- Objective: {objective}, {steps} steps, {tokens} tokens in {precision}
- Validation loss: {validation_loss:.4f}{explained}

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("path/of/this/folder", add_pooling_layer=False)
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""


def find_student(path: Path) -> tuple[Path, str]:
    """Folder and digest of a student, given its artifact's folder, the `student` folder in it, or any model folder.

    Raises:
        UsageError: the folder has no student.
    """
    folder = model_in(path)
    root = folder.parent if folder.name == "student" else folder
    if (root / MANIFEST).is_file():
        artifact = Artifact.load(root)
        if artifact.manifest["kind"] not in STAGES:
            raise UsageError(f"student '{path}': a '{artifact.manifest['kind']}' artifact; give a distilled student")
        return folder, model_digest(folder)
    files = [folder / "config.json", folder / "model.safetensors"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UsageError(f"student '{path}': {missing[0]} is missing; give the folder that `kdnas distill` printed")
    return folder, model_digest(folder)


def student_card(teacher: Teacher, corpus: str, results: dict[str, Any]) -> str:
    """README.md of a student's folder, from the results of its stage."""
    explained = results["explained_variance"]
    text = CARD.format(
        name=f"{teacher.label} as {results['arch']}",
        teacher=teacher.spec,
        corpus=corpus,
        explained="" if explained is None else f"; explained variance of the teacher's hidden states: {explained:.3f}",
        **{key: value for key, value in results.items() if key != "explained_variance"},
    )
    return with_metadata(inherited(teacher.path) | METADATA, text)
