"""Tools to test pages: a strict HTML parser that splits a page into sections, and a headless browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kdnas.store.artifact import Artifact

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


class Page(HTMLParser):
    """Parses a page strictly: every element must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.text_of: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = ""
        self.data: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []
        found = re.findall(r'class="figure" data-target="chart-(\w+)">(.*?)</script>', source, re.S)
        self.figures: dict[str, Any] = {name: json.loads(figure) for name, figure in found}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text_of[self.section] = self.text_of.get(self.section, "") + data
            self.data.append(data)

    @property
    def words(self) -> str:
        """Visible text with collapsed white space."""
        return " ".join("".join(self.data).split())

    def within(self, section: str) -> str:
        """Visible text of a section; an empty name gives the text outside all sections."""
        return " ".join(self.text_of[section].split())


def changed(artifact: Artifact, **results: Any) -> Artifact:
    """The artifact with other results."""
    return replace(artifact, manifest={**artifact.manifest, "results": {**artifact.results, **results}})


def assert_fetches_nothing(page: Page, links: str = "#") -> None:
    """Check that the page refers to no address, except in links (`<a>`) that start with `links`."""
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or ""
            allowed = value == "" or value.startswith("#") or (tag == "a" and value.startswith(links))
            assert allowed, f"<{tag} {name}={value}>"
    style = re.findall(r"<style>(.*?)</style>", page.source, re.S)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    policy = [row["content"] for tag, row in page.tags if tag == "meta" and "http-equiv" in row]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def browse(page: Path, folder: Path) -> tuple[str, list[str]]:
    """The document after loading, and the lines of the console."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on PATH (Debian: apt install chromium): the page cannot be rendered")
    switches = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000",
        "--enable-logging=stderr", "--window-size=1400,1000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([browser, *switches, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def drawn_chart(document: str, name: str) -> str:
    """The HTML that a browser rendered for a figure."""
    part = document.partition(f'id="chart-{name}"')[2].partition("<figcaption>")[0]
    assert "main-svg" in part, f"{name} was not rendered"
    return part
