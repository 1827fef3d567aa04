"""All pages share one template, style sheet and script."""

from pathlib import Path

import pytest

from kdnas.page.write import write_page


@pytest.mark.parametrize("package", ["kdnas.pipeline", "kdnas.latency", "kdnas.search", "kdnas.evaluation"])
def test_every_page_extends_the_base_template(package: str) -> None:
    from importlib import resources

    source = (resources.files(package) / "report.html.jinja").read_text()
    assert source.startswith('{% extends "base.html.jinja" %}')


def test_page_is_self_contained(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "suites.html"
    chart = {"data": [], "layout": {"height": 300}}
    write_page(page, "kdnas.evaluation", {"tables": [], "figures": {"speed": chart}, "names": "<b>", "host": "a host"})
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert "Plotly.react" in text
    assert 'id="chart-speed"' in text
    assert "&lt;b&gt;" in text
    assert "<link" not in text
    assert ' src="http' not in text
