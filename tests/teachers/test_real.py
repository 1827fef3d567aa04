"""The fetched teachers themselves, where `kdnas teachers --fetch` has left them: hashes, and what they find."""

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas.export.encoder import TOKIE
from kdnas.export.fast_tokenizer import write_fast_tokenizer
from kdnas.models.packaged import PACKAGED, fetch_command, folder_of
from kdnas.models.teacher import Teacher, load_encoder, load_tokenizer, resolve_teacher
from kdnas.store.artifact import MANIFEST, Artifact
from kdnas.text.joining import read_joining

from .package_fixture import E5, MPNET

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("KDNAS_HOME", ROOT / "artifacts"))
PREMISES = 40

pytestmark = pytest.mark.slow


def fetched(name: str) -> Teacher:
    """A fetched teacher; its digest is compared with the pinned one."""
    if not (folder_of(HOME, name) / MANIFEST).is_file():
        pytest.skip(f"{name} is not below {HOME}; run: {fetch_command(HOME, name)}")
    return resolve_teacher(f"builtin:{name}", HOME)


@pytest.mark.parametrize("name", [E5, MPNET])
def test_facts_and_hashes(name: str) -> None:
    teacher, known = fetched(name), PACKAGED[name]
    Artifact.load(teacher.path, "teachers").verify()
    assert teacher.digest == known.digest
    assert (teacher.config["model_type"], teacher.layers, teacher.hidden) == (known.family, known.layers, known.hidden)
    assert sum(file.stat().st_size for file in teacher.path.rglob("*") if file.is_file()) <= known.written_bytes


def embedded(teacher: Teacher, texts: list[str]) -> np.ndarray:
    """Unit vectors (N, D): the mean over the tokens."""
    model, tokenizer = load_encoder(teacher.path), load_tokenizer(teacher.path)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), 20):
            batch = tokenizer(
                texts[start : start + 20], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            mask = batch["attention_mask"][..., None]
            rows.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(rows)).numpy()


def premises(folder: Path, language: str) -> list[str]:
    """The first different premises of XNLI's validation rows, in the same order in every language."""
    with gzip.open(folder / "xnli" / f"{language}.validation.jsonl.gz", "rt") as lines:
        return [json.loads(line)["premise"] for line in lines]


def test_multilingual_teacher_finds_the_english_premise(shared_data: Path) -> None:
    teacher = fetched(E5)
    english = premises(shared_data, "en")
    first = [number for number, text in enumerate(english) if english.index(text) == number][:PREMISES]
    wanted = embedded(teacher, [f"query: {english[number]}" for number in first])
    for language in ("de", "sw", "zh"):
        texts = premises(shared_data, language)
        found = embedded(teacher, [f"query: {texts[number]}" for number in first]) @ wanted.T
        assert (found.argmax(1) == np.arange(PREMISES)).mean() >= 0.9, language


def test_multilingual_tokenizer_has_xlmr_layout() -> None:
    teacher = fetched(E5)
    tokenizer = load_tokenizer(teacher.path)
    assert (len(tokenizer), teacher.config["vocab_size"]) == (250_002, 250_037)
    assert tokenizer.mask_token_id == 250_001
    assert not hasattr(
        tokenizer, "fix_mistral_regex"
    )  # set with a warning if transformers takes it for one of Mistral's
    ids = tokenizer("Hello world!")["input_ids"]
    assert ids == [0, 35378, 8999, 38, 2]  # of the published tokenizer of XLM-R
    joining = read_joining(teacher.path)
    assert (joining.between, joining.text_types) == ((2, 2), (0, 0))


def test_multilingual_tokenizer_in_tokie(shared_data: Path, tmp_path: Path) -> None:
    """The form that an export prefers: the same ids in sixteen languages."""
    teacher = fetched(E5)
    shutil.copy(teacher.path / "tokenizer.json", tmp_path)
    texts = [
        text for file in sorted((shared_data / "xnli").iterdir()) for text in premises(shared_data, file.name[:2])[:200]
    ]
    found = write_fast_tokenizer(tmp_path, texts)
    assert found is not None
    assert found["file"] == TOKIE
    assert (found["compared"], found["differ"]) == (len(texts), 0)


def test_mpnet_embeds_similar_texts_close_together() -> None:
    texts = ["A cat sits on the mat.", "A kitten is resting on a rug.", "The central bank raised interest rates."]
    vectors = embedded(fetched(MPNET), texts)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
