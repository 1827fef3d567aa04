"""The README of an exported model: description, forms with their differences from PyTorch, and the original model's card."""

from pathlib import Path
from typing import Any

from kdnas.export.thresholds import THRESHOLDS
from kdnas.models.card import LONGEST, demoted, inherited, read_card, with_metadata
from kdnas.store.host import host_line

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write_card(folder: Path, name: str, settings: dict[str, Any], results: dict[str, Any], model: Path) -> None:
    """Write README.md with the metadata that model hubs read.

    Args:
        folder: folder of the export.
        name: title of the card.
        settings: content of `kdnas.json`.
        results: results of the export.
        model: folder of the original model; its licence and languages are inherited, and its card is quoted.
    """
    from jinja2 import Environment, StrictUndefined

    _, text = read_card(model)
    metadata = inherited(model) | {
        "library_name": "openvino",
        "pipeline_tag": settings["task"],
        "tags": ["onnx", "openvino", "kdnas"],
    }
    forms = list(results["forms"].values())
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE.read_text())
    card = template.render(
        name=name,
        settings=settings,
        results={"vocabulary": None, "tokenizer": None, **results, "thresholds": (folder / THRESHOLDS).is_file()},
        forms={
            form: {"recipe": None, "tried": None, **row}
            for form, row in (results["forms"] | results["run_time_forms"]).items()
        },
        labels=", ".join(settings["labels"][:8]),
        kept=next((name for name in ("labels_equal", "correlation") if all(name in row for row in forms)), None),
        host=host_line(),
        licence=metadata.get("license"),
        model=demoted(text) if len(text) <= LONGEST else "",
    )
    (folder / "README.md").write_text(with_metadata(metadata, card), encoding="utf-8")
