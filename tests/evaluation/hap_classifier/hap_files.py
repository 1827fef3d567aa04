"""Small files of three labelled sets, with words that decide the labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np

FILLERS = (
    "today",
    "the",
    "report",
    "arrived",
    "on",
    "a",
    "train",
    "and",
    "was",
    "read",
    "by",
    "people",
    "near",
    "town",
)
HATE, ABUSE = ("vermin", "subhuman"), ("stupid", "idiot")


def sentence(rng: np.random.Generator, hate: bool, abuse: bool) -> str:
    """Filler words with one word for each label that applies."""
    words = rng.choice(FILLERS, 6).tolist()
    if hate:
        words.insert(int(rng.integers(6)), str(rng.choice(HATE)))
    if abuse:
        words.insert(int(rng.integers(6)), str(rng.choice(ABUSE)))
    return " ".join(words)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")


def write_sets(root: Path, rows: int = 400) -> Path:
    """Write Davidson's tweets (en), MLMA (en, fr; ar has rows too) and GermEval 2018 (de); returns the data root."""
    rng = np.random.default_rng(0)
    kinds = [(True, True), (False, True), (False, False)]
    _write(
        root / "hap/hate_speech_offensive/train.jsonl",
        [{"tweet": f"{sentence(rng, *kinds[n % 3])} {n}", "class": n % 3} for n in range(rows)],
    )
    names = ("abusive_hateful", "offensive", "normal")
    for code in ("ar", "en", "fr"):
        _write(
            root / f"hap/mlma/{code}.train.jsonl",
            [
                {"tweet": f"{code} {sentence(rng, *kinds[n % 3])} {n}", "sentiment": names[n % 3]}
                for n in range(rows // 2)
            ],
        )
    fine = ("ABUSE", "INSULT", "OTHER")
    for split, count in (("train", rows), ("test", rows // 2)):
        _write(
            root / f"hap/germeval18/{split}.jsonl",
            [{"text": f"{split} {sentence(rng, *kinds[n % 3])} {n}", "multi": fine[n % 3]} for n in range(count)],
        )
    return root
