import re
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

import pytest

from kdnas.arguments import command_help
from kdnas.commands import COMMANDS, load_command
from kdnas.option_help import INPUTS, OUTPUTS, Option, first_and_advanced, in_words, metavar

WIDTHS = (60, 100)


def flags(parameters: Any, prefix: str = "") -> list[str]:
    """Every option of a signature as a flag, determined without jsonargparse."""
    found = []
    for parameter in parameters:
        kind = parameter.annotation if hasattr(parameter, "annotation") else parameter.type
        if is_dataclass(kind):
            found += flags(fields(kind), prefix if parameter.name == "options" else f"{prefix}{parameter.name}.")
        else:
            found.append("--" + (prefix + parameter.name).replace("_", "-"))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    function = load_command(name)
    wanted = flags(signature(function).parameters.values())
    for width in WIDTHS:
        text = command_help(name, function, width)
        heads = re.findall(r"^  (--[\w.-]+)", text, re.MULTILINE)
        assert sorted(heads) == sorted([*wanted, "--config"])
        assert max(map(len, text.splitlines())) <= width
        for wrong in ("ARG:", "ENV:", "typing.", "<class", "Literal", "--options", ".help", "print_config", "_lr"):
            assert wrong not in text, wrong
        assert text.startswith(f"usage: kdnas {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_first_options_exist(name: str) -> None:
    known = {flag[2:].replace("-", "_") for flag in flags(signature(load_command(name)).parameters.values())}
    assert set(COMMANDS[name].first) <= known
    assert not set(COMMANDS[name].first) & {*INPUTS, *OUTPUTS}


def test_common_options_are_listed_first() -> None:
    text = command_help("distill", load_command("distill"), 100)
    order = [text.index(f"\n  {flag} ") for flag in ("--arch", "--teacher", "--minutes", "--home", "--config")]
    assert order == sorted(order)
    assert max(order) < text.index("advanced options:") < text.index("--batch-tokens N")
    assert "--schedule {linear,cosine}" in text
    assert "(default: builtin:minilm-l6)" in text


def test_required_options_are_listed_before_others() -> None:
    options = [
        Option("home", str, "", "a", False),
        Option("other", str, "", "a", False),
        Option("budget", float, "", None, True),
        Option("minutes", float, "", 1, False),
    ]
    needed, advanced = first_and_advanced(options, ())
    assert [option.name for option in needed] == ["budget", "minutes", "home"]
    assert [option.name for option in advanced] == ["other"]


@pytest.mark.parametrize(
    ("kind", "shown", "words"),
    [
        (int | None, "N", "a whole number or null"),
        (tuple[float, ...], "NUMBER,...", "a comma-separated list, each value a number"),
        (tuple[str, ...] | None, "TEXT,...", "a comma-separated list, each value a string or null"),
        (bool, "{true,false}", "true or false"),
    ],
)
def test_placeholders_and_descriptions_of_types(kind: Any, shown: str, words: str) -> None:
    assert metavar(kind) == shown
    assert in_words(kind) == words
