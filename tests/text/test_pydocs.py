from pathlib import Path

import pytest

from kdnas.text.pydocs import installed_packages, sentences_of, sentences_of_file, source_files, split_sentences


def test_prose_is_kept_and_sections_are_dropped() -> None:
    text = """Return the sum of two numbers given as arguments.

    The numbers may be of any size, e.g. larger than a machine word.  Overflow cannot happen here.

    Parameters
    ----------
    a : int
        The first of the two numbers to add.

    Notes
    -----
    This takes linear time in the number of digits.

    Examples
    --------
    >>> add(1, 2)
    """
    assert sentences_of(text) == [
        "Return the sum of two numbers given as arguments.",
        "The numbers may be of any size, e.g. larger than a machine word.",
        "Overflow cannot happen here.",
        "This takes linear time in the number of digits.",
    ]


@pytest.mark.parametrize(
    "text",
    ["Short.", "no capital at the start of this one.", "No end to be seen in this one", "See https://example.org for all of it.",
     "Call foo(bar) to get it done.", ":param x: The value that is used here.", ">>> Print the value of this one."],
)  # fmt: skip
def test_text_other_than_prose_is_dropped(text: str) -> None:
    assert sentences_of(text) == []


def test_splitting_handles_abbreviations_and_markup() -> None:
    assert split_sentences("See Fig. A for it. Use ``x`` or :class:`~a.B`, i.e. The one. Done!") == [
        "See Fig. A for it.",
        "Use x or a.B, i.e. The one.",
        "Done!",
    ]


def test_file_is_read_without_being_executed(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""This module must never be imported at all."""\nraise SystemExit(1)\n'
        'class A:\n    """A class that holds one single method."""\n    if True:\n        def f(self):\n'
        '            """Do nothing at all, but slowly."""\n'
    )
    assert sentences_of_file(file, "pkg", "pkg.module") == [
        ("This module must never be imported at all.", "pkg", "pkg.module"),
        ("A class that holds one single method.", "pkg", "pkg.module"),
        ("Do nothing at all, but slowly.", "pkg", "pkg.module"),
    ]
    file.write_bytes(b"\xff\xfe broken (")
    assert sentences_of_file(file, "pkg", "pkg.module") == []


@pytest.mark.slow
def test_packages_and_their_files_are_found_in_a_stable_order() -> None:
    packages = installed_packages()
    assert {"python", "numpy", "torch", "transformers"} <= set(packages)
    files = [file for file, package, _ in source_files() if package == "numpy"]
    assert len(files) > 100
    assert files == sorted(files)
