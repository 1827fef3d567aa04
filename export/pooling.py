"""Files that make an exported encoder a model of sentence-transformers: mean over the tokens, unit length."""

from pathlib import Path

from kdnas.store.artifact import write_json

POOLING, NORMALIZE = "1_Pooling", "2_Normalize"


def write_modules(folder: Path, hidden: int, max_seq_len: int) -> None:
    """Describe the pooling of `Session.predict` as sentence-transformers does.

    Args:
        folder: the export, which holds the configuration, the tokenizer and the graphs.
        hidden: width D of the hidden states.
        max_seq_len: longer texts are cut to this many tokens.
    """
    kinds = {"": "Transformer", POOLING: "Pooling", NORMALIZE: "Normalize"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    (folder / POOLING).mkdir(exist_ok=True)
    (folder / NORMALIZE).mkdir(exist_ok=True)
    write_json(folder / POOLING / "config.json", {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True})
    write_json(folder / NORMALIZE / "config.json", {})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_len, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    write_json(folder / "modules.json", modules)
