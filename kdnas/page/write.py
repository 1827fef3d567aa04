"""How a page of results is written: its template, and one HTML file that appears whole or not at all."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from kdnas import __version__
from kdnas.errors import UsageError
from kdnas.page.formatting import FILTERS
from kdnas.store.artifact import disk_errors


def require_file_name(page: Path, example: str) -> None:
    """Refuse a folder where a page is to be written.

    Raises:
        UsageError: `page` is a folder; the message names the file `example` in it.
    """
    if page.is_dir():
        raise UsageError(f"{page}: is a folder; give a file name, as in {page / example}")


def write_page(page: Path, package: str, values: Mapping[str, Any]) -> None:
    """Fill the template `report.html.jinja` of a package and replace the file `page` by it, whole."""
    text = template(package).render(values)
    with disk_errors(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
        temporary = page.with_name(page.name + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, page)


def look() -> dict[str, str]:
    """What all pages share: style sheet and painting script of the pipeline's report, the library for charts, the version."""
    from plotly.offline import get_plotlyjs

    source = (resources.files("kdnas.pipeline") / "report.html.jinja").read_text(encoding="utf-8")
    style = source.partition("<style>")[2].partition("</style>")[0]
    script = source.rpartition("<script>")[2].partition("</script>")[0]
    assert ":root" in style
    assert "function paint()" in script
    return {"style": style, "script": script, "plotly_js": get_plotlyjs(), "version": __version__}


def template(package: str) -> Any:
    """The template of a package's page; a figure that is missing renders as "not measured", never as 0."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template("report.html.jinja")
