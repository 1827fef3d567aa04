"""The README of an exported model: what it is, its forms, and how far each is from PyTorch."""

from pathlib import Path
from typing import Any

USE = """```python
from pathlib import Path
from export.session import Session

session = Session(Path("{folder}"))  # the fastest form; form="openvino-f32" chooses another
print(session.predict(["How do I open a file?"]))  # {what}
```

`kdnas serve --model DIR` answers HTTP requests with this folder{filter}. ONNX Runtime and OpenVINO load the graphs
directly; `optimum.onnxruntime` and `optimum.intel` load the folders `onnx`, `onnx-int8`,
`openvino/f32` and `openvino/int8`."""


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
    classifier = settings["task"] == "text-classification"
    header = ["form", "size MB", "max abs diff", "mean abs diff", "cosine min", "cosine mean"]
    rows = [header + ["labels equal"] * classifier]
    rows.append(["---"] + ["---:"] * (len(rows[0]) - 1))
    for form, found in results["forms"].items():
        row = [form, f"{found['size_mb']:.1f}", f"{found['max_abs_diff']:.1e}", f"{found['mean_abs_diff']:.1e}"]
        row += [f"{found['cosine_min']:.4f}", f"{found['cosine_mean']:.4f}"]
        rows.append(row + ([f"{100 * found['labels_equal']:.1f} %"] if classifier else []))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    what = f"probabilities of {', '.join(settings['labels'][:8])}" if classifier else "mean-pooled unit vectors"
    use = USE.format(folder=".", what=what, filter=", `kdnas filter --model DIR` scores a corpus" if classifier else "")
    return (
        f"# {name}\n\nTask: {settings['task']}. Hidden size {settings['hidden']}, at most {settings['max_seq_len']} "
        f"tokens.\n\n## Against PyTorch\n\n{results['sentences']} held-out sentences of all lengths, each alone and in "
        f"padded batches; values up to {results['max_abs_value']:.1f}.\n\n{table}\n\n"
        "The float32 forms are refused beyond 1e-4 (relative to values beyond 1); the int8 forms are reported.\n\n"
        f"## Use\n\n{use}\n"
    )
