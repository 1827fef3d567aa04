"""Disk and memory use of a multilingual student: shape 4,12,576,768 with XLM-R's 250,002 tokens, random weights.

Run as `python tests/bench/export_memory.py [SENTENCES]`: exports OpenVINO f32 and int8, then runs this number of texts of
random lengths, one at a time, in a separate process for each form. Prints sizes, and resident memory (tokenizer included)
during the run.
"""

import json
import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel

from kdnas.export.encoder import TOKENIZER
from kdnas.export.fast_tokenizer import write_fast_tokenizer
from kdnas.export.folder import FORMS, SETTINGS
from kdnas.export.openvino_form import write_int8, write_openvino
from kdnas.export.silence import silence_exporters
from kdnas.models.arch import Arch
from kdnas.models.student import student_config
from kdnas.models.teacher import SHAPE, load_config, resolve_shape
from kdnas.store.host import host_line

ARCH = Arch(4, 12, 576, 768, "gelu")
TASK = "feature-extraction"
FORMS_MEASURED = ("openvino-int8", "openvino-f32")
CHILD = """
import random, sys
from pathlib import Path
import psutil
from kdnas.export.session import Session
session = Session(Path(sys.argv[1]), sys.argv[2], verify=False)
words = Path(sys.argv[1], "words.txt").read_text().split()
rng = random.Random(0)
count, seen = int(sys.argv[3]), []
for number in range(count):
    session.predict([" ".join(rng.choices(words, k=rng.randint(1, 60)))])
    if number in (0, count // 10, count // 2, count - 1):
        seen.append(round(psutil.Process().memory_info().rss / 1e6))
print(*seen)
"""


def synthetic_tokenizer(size: int) -> tuple[Tokenizer, list[str]]:
    """A Unigram tokenizer of this size, including all single letters, and words for it; spaces are handled as in XLM-R."""
    rng = random.Random(0)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *string.ascii_lowercase]
    known = set(pieces)
    while len(pieces) < size - 1:
        piece = "\u2581" * rng.randint(0, 1) + "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
    vocabulary = [(piece, 0.0 if index < 4 else -8.0 - index / size) for index, piece in enumerate([*pieces, "<mask>"])]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    spaces = normalizers.Replace(Regex(" {2,}"), "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(left=False, right=True), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer, [piece.strip("\u2581") for piece in rng.sample(pieces[40:], 5000)]


def export_into(folder: Path) -> None:
    """Write both forms, the tokenizer and the settings."""
    config = student_config(ARCH, load_config(resolve_shape(SHAPE).path))
    torch.manual_seed(0)
    model = AutoModel.from_config(config, add_pooling_layer=False).eval()
    tokenizer, words = synthetic_tokenizer(config.vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    fast = write_fast_tokenizer(folder, [" ".join(words[first : first + 20]) for first in range(0, len(words), 20)])
    print("faster tokenizer:", fast or "not written", flush=True)
    (folder / "words.txt").write_text("\n".join(words))
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, config.vocab_size, length).tolist() for length in range(8, 64)]
    with silence_exporters():
        write_openvino(model, TASK, (folder / FORMS["openvino-f32"]).parent)
        write_int8((folder / FORMS["openvino-f32"]).parent, TASK, rows, (folder / FORMS["openvino-int8"]).parent)
    settings = {
        "task": TASK,
        "labels": [],
        "hidden": ARCH.hidden,
        "max_seq_len": 128,
        "pad_id": 1,
        "encoder": fast["file"] if fast else TOKENIZER,
        "forms": list(FORMS),
    }
    (folder / SETTINGS).write_text(json.dumps(settings))


def main(sentences: int) -> None:
    """Export, run the texts and print."""
    print(host_line())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_into(folder)
        for form in FORMS_MEASURED:
            files = [file for file in (folder / FORMS[form]).parent.iterdir() if file.is_file()]
            disk_mb = sum(file.stat().st_size for file in files) / 1e6
            command = [sys.executable, "-c", CHILD, str(folder), form, str(sentences)]
            memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            shown = (
                f"{', '.join(memory)} MB resident after 1, {sentences // 10}, {sentences // 2} and {sentences} texts"
            )
            print(f"{form:14} {disk_mb:6.1f} MB on disk; {shown}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
