"""The page at /: try a text, see labels, entities or answers in it, and the latency. It needs only the service itself."""

from importlib.resources import files

from kdnas import __version__


def try_page() -> str:
    """The page, in the style of the result pages."""
    page = (files("kdnas.serving") / "try.html").read_text(encoding="utf-8")
    style = (files("kdnas.page") / "page.css").read_text(encoding="utf-8")
    return page.replace("/*style*/", style).replace("<!--version-->", __version__)
