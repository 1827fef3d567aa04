"""Model cards: read the README.md of a model's folder, and copy its licence and languages to derived models."""

import re
from pathlib import Path
from typing import Any

# Metadata that a derived model inherits.
CARRIED = ("license", "license_name", "license_link", "language")
BLOCK = re.compile(r"\s*---\r?\n(.*?)\r?\n---\s*?(?:\n|\Z)", re.S)  # metadata, as model hubs find it
LONGEST = 6000  # maximum characters of a card that another card quotes


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of the folder's README.md; both empty if it is missing or damaged."""
    import yaml

    try:
        content = (folder / "README.md").read_text(encoding="utf-8")
        block = BLOCK.match(content)
        metadata = yaml.safe_load(block[1]) if block else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}, ""
    return metadata if isinstance(metadata, dict) else {}, content[block.end() if block else 0 :].strip()


def inherited(folder: Path) -> dict[str, Any]:
    """Licence and languages of the model in this folder."""
    metadata, _ = read_card(folder)
    return {name: metadata[name] for name in CARRIED if metadata.get(name)}


def with_metadata(metadata: dict[str, Any], text: str) -> str:
    """A card: metadata for model hubs, then the text."""
    import yaml

    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n\n{text}"


def demoted(text: str) -> str:
    """The text with its headings two levels lower, for use in another card; code blocks are unchanged."""
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else re.sub(r"^#", "###", part, flags=re.M) for part in parts)
