"""Pages of results. Each page fills a template that extends `base.html.jinja`, as one HTML file that needs no network."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader

from kdnas import __version__
from kdnas.errors import UsageError
from kdnas.page.formatting import FILTERS
from kdnas.store.disk import disk_errors

REPORT = "report.html.jinja"  # template of a package


def require_file_name(page: Path, example: str) -> None:
    """Check that the path of a page is not a folder.

    Raises:
        UsageError: `page` is a folder; the message suggests the file `example` in it.
    """
    if page.is_dir():
        raise UsageError(f"{page}: is a folder; give a file name, as in {page / example}")


def write_page(page: Path, package: str, values: Mapping[str, Any], name: str = REPORT) -> None:
    """Fill a template of a package and replace the file `page` atomically.

    Args:
        page: file to write.
        package: package with the template, such as `kdnas.latency`.
        values: variables of the template; the version and the chart library are added.
        name: file name of the template.
    """
    text = page_text(package, values, name)
    with disk_errors(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
        temporary = page.with_name(page.name + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, page)


def page_text(package: str, values: Mapping[str, Any], name: str = REPORT) -> str:
    """The text of a page, see `write_page`."""
    from plotly.offline import get_plotlyjs

    return str(template(package, name).render({"version": __version__, "plotly_js": get_plotlyjs(), **values}))


def template(package: str, name: str = REPORT) -> Any:
    """A template of a package; a missing number is shown as "not measured", never as 0."""
    return _environment(package).get_template(name)


@cache
def _environment(package: str) -> Environment:
    """The templates of a package; each is compiled once in a process."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("kdnas.page", ".")]),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment
