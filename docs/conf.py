"""Settings of the documentation site: `make docs` builds it into build/docs, with warnings as errors."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from commands import write_pages  # noqa: E402  (needs the line above)
from functions import write_functions  # noqa: E402

from kdnas import __version__  # noqa: E402

project = "kdnas"
author = "the kdnas authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: list[str] = []
html_theme = "furo"
html_title = f"kdnas {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]  # no math extension: it loads an external script
myst_heading_anchors = 3

# Packages that the public interface imports and the documentation does not need.
autodoc_mock_imports = [
    "accelerate", "datasets", "evaluate", "nncf", "onnx", "onnxruntime", "openvino", "optimum", "optuna", "plotly", "ray",
    "safetensors", "scipy", "sentencepiece", "seqeval", "sklearn", "tokie", "torch", "transformers",
]  # fmt: skip
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx looks for its sources."""
    write_pages(HERE / "reference" / "commands")
    write_functions(HERE / "reference" / "functions.md")
