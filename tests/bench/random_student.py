"""Make a student with random weights as a baseline: the quality that fine-tuning alone reaches with a shape.

Run as `python tests/bench/random_student.py MODEL FOLDER`; MODEL is as for `kdnas suites`. Writes a model of the same
configuration and tokenizer, with random weights, as a standard Hugging Face folder.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel

from kdnas.evaluation.harness import resolve_model
from kdnas.models.folder import copy_tokenizer


def main(model: str, target: Path) -> None:
    """Write the folder."""
    folder, _ = resolve_model(model)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(target)
    copy_tokenizer(folder, target)
    print(target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
