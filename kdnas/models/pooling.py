"""How a model pools hidden states to one vector: read its sentence-transformers files, and write such files for new models."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from kdnas.errors import UsageError
from kdnas.models.head import DENSE, PROMPTS, Head, Prompts, write_head
from kdnas.store.json_files import write_json

Pooling = Literal["mean", "first"]
MODULES, POOLING, NORMALIZE = "modules.json", "1_Pooling", "2_Normalize"
NORMALIZE_LAST = "3_Normalize"  # after a head
# Names in sentence-transformers: a flag up to version 4, and a value of `pooling_mode` from version 5.
MODES: dict[Pooling, tuple[str, str]] = {
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "first": ("pooling_mode_cls_token", "cls"),
}


def pooling_of(folder: Path) -> Pooling:
    """The pooling in a model's `modules.json`: `first` (state of the first token) or `mean` (over all real tokens).

    Args:
        folder: folder of the model; without `modules.json` the pooling is `mean`.

    Raises:
        UsageError: a file cannot be read, or the model has another kind of pooling.
    """
    file = folder / MODULES
    if not file.is_file():
        return "mean"
    try:
        paths = [module["path"] for module in json.loads(file.read_text()) if module["type"].endswith(".Pooling")]
        if not paths:
            return "mean"
        file = folder / paths[0] / "config.json"
        settings: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file}: cannot be read ({error}); fix it, or delete {folder / MODULES} to pool by the mean"
        ) from error
    given = settings.get("pooling_mode")  # version 5 writes a name here, earlier versions write a flag for each mode
    named = [given] if isinstance(given, str) else list(given or [])
    modes = {*named, *(name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True)}
    for pooling in get_args(Pooling):
        if modes and modes <= set(MODES[pooling]):
            return pooling
    raise UsageError(
        f"{file}: pooling by {', '.join(sorted(map(str, modes))) or 'nothing'}; supported are the mean over the tokens "
        "(pooling_mode_mean_tokens) or the first token (pooling_mode_cls_token)"
    )


def write_modules(
    folder: Path,
    hidden: int,
    max_seq_len: int,
    pooling: Pooling = "mean",
    head: Head | None = None,
    prompts: Prompts = Prompts(),
) -> None:
    """Write the files that make an encoder a sentence-transformers model: pooling, a head if any, and unit length.

    Args:
        folder: folder with the configuration and the tokenizer.
        hidden: size D of the hidden states.
        max_seq_len: number of tokens to which longer texts are truncated.
        pooling: how the states become one vector.
        head: linear map of the pooled vector; None for models without a head.
        prompts: prompts of the model.
    """
    kinds = {"": "Transformer", POOLING: "Pooling", NORMALIZE: "Normalize"}
    if head is not None:
        kinds = {"": "Transformer", POOLING: "Pooling", DENSE: "Dense", NORMALIZE_LAST: "Normalize"}
        write_head(folder, head)
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    normalize = list(kinds)[-1]
    (folder / POOLING).mkdir(exist_ok=True)
    (folder / normalize).mkdir(exist_ok=True)
    write_json(
        folder / POOLING / "config.json",
        {"word_embedding_dimension": hidden} | {flag: name == pooling for name, (flag, _) in MODES.items()},
    )
    write_json(folder / normalize / "config.json", {})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_len, "do_lower_case": False})
    named = {"prompts": dict(prompts.texts), "default_prompt_name": prompts.default} if prompts.texts else {}
    write_json(folder / PROMPTS, {"similarity_fn_name": "cosine", **named})
    write_json(folder / MODULES, modules)
