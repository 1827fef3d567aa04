from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from kdnas import commands
from kdnas.arguments import gathered
from kdnas.arguments import parse as parse_command
from kdnas.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Options.

    Args:
        minutes: training time.
        fast: whether to be fast.
        peak_lr: peak learning rate.
        schedule: learning-rate schedule.
        counts: some counts.
    """

    minutes: float = 10
    fast: bool = False
    peak_lr: float = 0.1
    schedule: Literal["linear", "cosine"] = "linear"
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Group.

    Args:
        column: name of the column.
        languages: some languages.
        max_length: maximum length.
    """

    column: str = "text"
    max_length: int = 128
    languages: tuple[str, ...] | None = None


def command(options: Options = Options(), text: Group = Group(), home: Path = Path("artifacts")) -> None:
    """A command."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(commands.COMMANDS, "test", commands.Command("x:y", "a test"))
    monkeypatch.delenv("KDNAS_HOME", raising=False)
    return lambda *argv: parse_command("test", command, list(argv))


def test_precedence_is_defaults_yaml_environment_flags(parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("minutes: 1\ntext: {column: yaml}\nhome: yaml\n")
    assert parse()["options"] == Options(10, False)
    values = parse("--config", str(config))
    assert (values["options"].minutes, values["text"].column, values["home"]) == (1, "yaml", Path("yaml"))
    monkeypatch.setenv("KDNAS_TEXT__COLUMN", "env")
    monkeypatch.setenv("KDNAS_HOME", "env")
    values = parse("--config", str(config))
    assert (values["options"].minutes, values["text"].column, values["home"]) == (1, "env", Path("env"))
    values = parse("--config", str(config), "--minutes", "3", "--text.column=flag", "--home", "flag")
    assert (values["options"].minutes, values["text"].column, values["home"]) == (3, "flag", Path("flag"))


def test_boolean_flags_take_a_value_no_value_or_the_prefix_no(parse) -> None:
    assert parse("--fast")["options"].fast is True
    assert parse("--fast", "false")["options"].fast is False
    assert parse("--fast", "--minutes", "2")["options"] == Options(2, True)
    assert parse("--no-fast", "--minutes", "2")["options"] == Options(2, False)
    with pytest.raises(UsageError, match="--no-minutes"):
        parse("--no-minutes")


@pytest.mark.parametrize(
    "argv", [["--text.languages", "en,de"], ["--text.languages=en,de"], ["--text.languages", "[en,de]"]]
)
def test_lists_need_no_brackets(parse, argv: list[str]) -> None:
    assert parse(*argv)["text"].languages == ("en", "de")
    assert parse()["text"].languages is None
    assert parse("--text.languages", "en")["text"].languages == ("en",)
    assert parse("--text.languages", "null")["text"].languages is None
    assert parse("--text.languages", "no,de")["text"].languages == ("no", "de")
    assert parse("--counts", "1,2")["options"].counts == (1, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--minuts", "3"], "did you mean '--minutes'"),
        (["--text.colum", "x"], "did you mean '--text.column'"),
        (["--minutes", "soon"], "minutes takes a number, not 'soon'"),
        (["--config", "missing.yaml"], "does not exist"),
        (["--minutes"], "--minutes needs a value"),
        (["--config"], "--config needs a file"),
        (["--schedule", "up"], "--schedule takes one of linear, cosine, not 'up'"),
        (["--counts", "1,b"], "--counts takes a comma-separated list, each value a whole number, not 'b'"),
        (["--text", "x"], "--text is a group of options; give --text.column"),
        (["surplus"], "'surplus' belongs to no option"),
    ],
)
def test_invalid_flags_are_reported(parse, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("minuts: 3", "did you mean '--minutes'"),
        ("text: {colum: x}", "did you mean '--text.column'"),
        ("minutes: soon", "minutes takes a number, not 'soon'"),
        ("minutes: [", "not a YAML file"),
        ("- a", "must contain"),
        ("text: 3", "'text' must contain"),
        ("peak-lr: 1\npeak_lr: 2", "'peak_lr' was given twice, the second time in line 2"),
        ("schedule: up", "c.yaml: schedule takes one of linear, cosine, not 'up'"),
    ],
)
def test_invalid_yaml_is_reported(parse, tmp_path: Path, yaml: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml)
    with pytest.raises(UsageError, match=message):
        parse("--config", str(config))


@pytest.mark.parametrize("spelling", ["--peak-lr 2 --text.max-length 3", "--peak_lr=2 --text.max_length=3"])
def test_dashes_and_underscores_are_equivalent(parse, spelling: str) -> None:
    values = parse(*spelling.split())
    assert (values["options"].peak_lr, values["text"].max_length) == (2, 3)


def test_yaml_keys_may_have_dashes(parse, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("peak-lr: 2.0e-4\ntext: {max-length: 3}\n")
    values = parse("--config", str(config))
    assert (values["options"].peak_lr, values["text"].max_length) == (2e-4, 3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--minutes 1 --minutes 2", "--minutes was given twice"),
        ("--peak-lr 1 --peak_lr=2", "--peak-lr was given twice"),
        ("--text.max-length 1 --text.max_length 2", "--text.max-length was given twice"),
        ("--fast --no-fast", "--fast was given twice"),
        ("--counts 1 --counts 2", "--counts was given twice; give all its values at once: --counts a,b"),
    ],
)
def test_duplicate_options_are_rejected(parse, argv: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(*argv.split())


def test_later_config_files_override_earlier_ones(parse, tmp_path: Path) -> None:
    for name, text in (("a", "minutes: 1\npeak_lr: 1\n"), ("b", "minutes: 2\n")):
        (tmp_path / name).write_text(text)
    options = parse("--config", str(tmp_path / "a"), f"--config={tmp_path / 'b'}")["options"]
    assert (options.minutes, options.peak_lr) == (2, 1)


def test_missing_required_option_is_reported_as_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(budget_ms: float) -> None:
        """A command."""

    monkeypatch.setitem(commands.COMMANDS, "test", commands.Command("x:y", "a test"))
    with pytest.raises(UsageError, match="missing: --budget-ms"):
        parse_command("test", needs, [])
    assert parse_command("test", needs, ["--budget-ms", "3"]) == {"budget_ms": 3.0}


def test_filter_takes_several_inputs_in_one_option() -> None:
    argv = ["--model", "m", "--output", "o", "--input", "a,s3://b/*"]
    assert parse_command("filter", commands.load_command("filter"), argv)["input"] == ("a", "s3://b/*")
    with pytest.raises(UsageError, match="give all its values at once: --input a,b"):
        parse_command("filter", commands.load_command("filter"), [*argv, "--input", "c"])


def test_a_command_of_two_words_differs_from_its_first() -> None:
    assert commands.split_command(["filter", "apply", "--run", "x"]) == ("filter apply", ["--run", "x"])
    assert commands.split_command(["filter", "--input", "finish"]) == ("filter", ["--input", "finish"])


def test_invalid_environment_variable_is_reported(parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDNAS_TEXT__MAX_LENGTH", "long")
    with pytest.raises(UsageError, match="KDNAS_TEXT__MAX_LENGTH takes a whole number, not 'long'"):
        parse()
    assert parse("--text.max-length", "3")["text"].max_length == 3
    monkeypatch.setenv("KDNAS_TEXT__MAX_LENGTH", "5")
    monkeypatch.setenv("KDNAS_TEXT__LANGUAGES", "en,de")
    text = parse()["text"]
    assert (text.max_length, text.languages) == (5, ("en", "de"))


def test_a_repeated_option_gathers_its_values() -> None:
    assert gathered(["a", "--model", "b=c", "--port", "1", "--model=d"], "model") == [
        '--model=["a", "b=c", "d"]',
        "--port",
        "1",
    ]
    assert gathered(["--model", "a,b"], "model") == ['--model=["a", "b"]']
    assert gathered(["--port", "1", "stray"], "model") == ["--port", "1", "stray"]
    assert gathered([], "model") == []


def test_serve_takes_folders_by_position_and_by_name() -> None:
    from kdnas.serving.run import serve

    values = parse_command("serve", serve, ["one", "--model", "b=two", "--port", "0", "--model", "three"])
    assert values["model"] == ("one", "b=two", "three")
    with pytest.raises(UsageError, match="missing: --model"):
        parse_command("serve", serve, ["--port", "0"])
