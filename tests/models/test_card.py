"""Model cards: reading a README, and the metadata that derived models inherit."""

from pathlib import Path

from huggingface_hub import ModelCard

from kdnas.models.card import demoted, inherited, read_card, with_metadata
from kdnas.models.teacher import BUILTIN, resolve_teacher

CARD = """---
license: mit
language: [de, fr]
tags: [old]
---
# A model

```python
# a comment
```
"""


def test_licence_and_languages_are_inherited(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    assert inherited(tmp_path) == {"license": "mit", "language": ["de", "fr"]}
    assert inherited(resolve_teacher(BUILTIN).path)["license"] == "apache-2.0"
    (tmp_path / "README.md").write_text(with_metadata(inherited(tmp_path) | {"tags": ["new"]}, "# Another\n"))
    again = ModelCard.load(tmp_path / "README.md")
    assert (again.data.license, again.data.language, again.data.tags) == ("mit", ["de", "fr"], ["new"])
    assert again.text.strip() == "# Another"


def test_missing_and_damaged_cards_are_empty(tmp_path: Path) -> None:
    assert read_card(tmp_path) == ({}, "")
    (tmp_path / "README.md").write_bytes(b"---\nlicense: [\n---\n# A")
    assert inherited(tmp_path) == {}
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert read_card(tmp_path) == ({}, "")


def test_headings_outside_code_blocks_are_demoted() -> None:
    assert demoted("# A\n\n```python\n# a comment\n```\n## B\n") == "### A\n\n```python\n# a comment\n```\n#### B\n"
