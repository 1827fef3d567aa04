"""A tiny random model of each family, with the packaged tokenizer."""

from pathlib import Path
from typing import Any

from kdnas.models.teacher import Teacher, resolve_teacher

LAYERS, HEADS, HIDDEN, FFN, POSITIONS = 3, 6, 48, 80, 130
NAMES = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": HIDDEN, "intermediate_size": FFN}
# Settings of each model type. Add an entry for a new family.
TINY: dict[str, dict[str, Any]] = {
    "bert": NAMES,
    "roberta": NAMES | {"type_vocab_size": 1, "pad_token_id": 0},
    "xlm-roberta": NAMES | {"type_vocab_size": 1, "pad_token_id": 0},
    "distilbert": {"n_layers": LAYERS, "n_heads": HEADS, "dim": HIDDEN, "hidden_dim": FFN},
    "mpnet": NAMES | {"pad_token_id": 0},
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def tiny_model(model_type: str, packaged: Teacher, folder: Path) -> Teacher:
    """A random model, saved as a Hugging Face folder; its weights have enough variance for distinct states."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    sizes = {
        "vocab_size": packaged.config["vocab_size"],
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.1,
    }
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **sizes, **TINY[model_type]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # biases and norms too, so that tests detect missing ones
    model.save_pretrained(folder)
    for name in TOKENIZER:
        (folder / name).write_bytes((packaged.path / name).read_bytes())
    return resolve_teacher(str(folder))
