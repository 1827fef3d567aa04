"""The README of an exported model: what it is, its forms, and how far each is from PyTorch."""

from pathlib import Path
from typing import Any

CALLS = {
    "feature-extraction": 'session.predict(["How do I open a file?"])  # mean-pooled unit vectors',
    "text-classification": 'session.predict(["How do I open a file?"])  # probabilities of {labels}',
    "token-classification": 'export.spans.token_scores(session, ["Ada Lovelace lived in London."])  # {labels}',
    "question-answering": 'export.spans.Answerer(session).answer("Who is it?", "It is Ada Lovelace.")',
}
SERVED = {
    "feature-extraction": "`kdnas serve --model DIR` answers HTTP requests with this folder. ",
    "text-classification": "`kdnas serve --model DIR` answers HTTP requests with this folder, `kdnas filter --model DIR` scores "
    "a corpus. ",
}
USE = """```python
from pathlib import Path
import export.spans
from export.session import Session

session = Session(Path("."))  # the fastest form; form="openvino-f32" chooses another
{call}
```

{served}The folder itself is a model of `transformers`{libraries}; ONNX Runtime and
OpenVINO load the graphs directly; `optimum.onnxruntime` loads the folders `onnx` and `onnx-int8`, `optimum.intel`
`openvino` and `openvino/int8`."""


def write_card(folder: Path, name: str, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write README.md with the metadata that model hubs read."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name="openvino",
        pipeline_tag=settings["task"],
        tags=["onnx", "openvino", "kdnas"],
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card_text(name, settings, results)}").save(folder / "README.md")


def card_text(name: str, settings: dict[str, Any], results: dict[str, Any]) -> str:
    """The card without its metadata."""
    labelled = settings["task"] != "feature-extraction"
    header = ["form", "size MB", "max abs diff", "mean abs diff", "p99 abs diff", "cosine min", "cosine mean"]
    rows = [header + ["labels equal"] * labelled]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for form, found in (results["forms"] | results["run_time_forms"]).items():
        row = [form, f"{found['size_mb']:.1f}", f"{found['max_abs_diff']:.1e}", f"{found['mean_abs_diff']:.1e}"]
        row += [f"{found['p99_abs_diff']:.1e}", f"{found['cosine_min']:.4f}", f"{found['cosine_mean']:.4f}"]
        rows.append(row + ([f"{100 * found['labels_equal']:.1f} %"] if labelled else []))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    call = CALLS[settings["task"]].format(labels=", ".join(settings["labels"][:8]))
    libraries = ' and of `sentence-transformers` (`backend="onnx"` or `"openvino"`, too)' * (not labelled)
    use = USE.format(call=call, served=SERVED.get(settings["task"], ""), libraries=libraries)
    vocabulary = ""
    if trimmed := results.get("vocabulary"):
        vocabulary = (
            f"## Vocabulary\n\n{trimmed['tokens_after']:,} of {trimmed['tokens_before']:,} tokens were kept, those of the corpus "
            f"and all single characters: embeddings of {trimmed['embeddings_mb_after']:.1f} MB instead of "
            f"{trimmed['embeddings_mb_before']:.1f} in float32. They cover {100 * trimmed['held_out_tokens_covered']:.2f} % of "
            f"the tokens of held-out sentences, and all tokens of {100 * trimmed['held_out_texts_covered']:.2f} % of the "
            "sentences, which are answered as before.\n\n"
        )
    return (
        f"# {name}\n\nTask: {settings['task']}. Hidden size {settings['hidden']}, at most {settings['max_seq_len']} "
        f"tokens.\n\n## Against PyTorch\n\n{results['sentences']} held-out sentences of all lengths, each alone and in "
        f"padded batches; values up to {results['max_abs_value']:.1f}.\n\n{table}\n\n"
        "The float32 forms are refused beyond 1e-4 (relative to values beyond 1); the int8 forms are reported.\n\n"
        f"{vocabulary}## Use\n\n{use}\n"
    )
