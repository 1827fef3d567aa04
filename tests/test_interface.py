"""The Python interface: light import in any order, flat options, results without output."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

import kdnas
from kdnas.errors import UsageError
from kdnas.interface import FUNCTIONS, arguments, flat_doc, flat_signature, function_of
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Outcome

PACKAGES = ("distill", "export", "pretrain", "search")


@dataclass(frozen=True)
class Inner:
    """A nested option group.

    Args:
        size: size.
    """

    size: int = 3


@dataclass(frozen=True)
class Base:
    """Shared options.

    Args:
        minutes: time,
            over two lines.
    """

    minutes: float = 5


@dataclass(frozen=True)
class Options(Base):
    """Options.

    Args:
        mode: mode.
        rates: some rates.
        inner: nested options.
    """

    mode: Literal["fast", "slow"] = "fast"
    rates: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)


def command(
    options: Options,
    arch: Arch,
    model: str = "m",
    group: Inner = Inner(7),
    home: Path = Path("artifacts"),
    limit: int | None = None,
    strict: bool = False,
) -> None:
    """A command.

    Args:
        options: how,
            over two lines.
        arch: architecture.
        model: model.
        group: option group.
        home: folder.
        limit: maximum.
        strict: whether to be strict.
    """


def given(*args: Any, **options: Any) -> dict[str, Any]:
    return arguments("command", command, flat_signature(command), args, options)


def test_arguments_are_converted_to_annotated_types() -> None:
    values = given("2,4,24,48,gelu", minutes=2, rates=[1, 0.5], home="there", group={}, model=Path("folder"))
    assert values["arch"] == Arch(2, 4, 24, 48, "gelu")
    assert values["options"] == Options(2.0, "fast", (1.0, 0.5))
    assert (values["home"], values["model"]) == (Path("there"), "folder")
    assert given(Arch(2, 4, 24, 48))["arch"] == Arch(2, 4, 24, 48)
    assert given("2,4,24,48,gelu", inner={"size": 9})["options"].inner == Inner(9)
    assert given("2,4,24,48,gelu", group=Inner(1))["group"] == Inner(1)
    assert given("2,4,24,48,gelu", model=Outcome(Path("out")))["model"] == "out"  # the result of another function
    assert given("2,4,24,48,gelu", limit=None)["limit"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minuts": 3}, r"unknown argument 'minuts' \(did you mean 'minutes'\?\); allowed are arch, model"),
        ({"group": {"sise": 3}}, r"group: unknown argument 'sise' \(did you mean 'size'\?\)"),
        ({"minutes": "ten"}, r"minutes is 'ten' \(str\); allowed: float"),
        ({"minutes": True}, r"minutes is True \(bool\)"),
        ({"limit": 1.5}, r"limit is 1.5 \(float\); allowed: int"),
        ({"strict": 1}, r"strict is 1 \(int\); allowed: bool"),
        ({"mode": "quick"}, r"mode is 'quick' \(str\); allowed: 'fast', 'slow'"),
        ({"rates": "0.5"}, r"rates is '0.5' \(str\)"),
        ({"rates": [1, "x"]}, r"rates\[1\] is 'x'"),
        ({"inner": {"size": "3"}}, r"inner.size is '3'"),
        ({"home": 3}, r"home is 3 \(int\); allowed: Path"),
    ],
)
def test_invalid_arguments_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        given("2,4,24,48,gelu", **options)


def test_missing_and_repeated_arguments_are_reported() -> None:
    with pytest.raises(UsageError, match=r"'arch'; required are arch"):
        given()
    with pytest.raises(UsageError, match="multiple values for argument 'arch'"):
        given("2,4,24,48,gelu", arch="2,4,24,48,gelu")


def test_signature_and_docstring_are_flat() -> None:
    assert list(flat_signature(command).parameters) == [
        "arch", "model", "group", "home", "limit", "strict", "minutes", "mode", "rates", "inner",
    ]  # fmt: skip
    entries = re.findall(r"^    (\w+):", flat_doc(command), re.M)
    assert entries == ["minutes", "mode", "rates", "inner", "arch", "model", "group", "home", "limit", "strict"]
    assert "over two lines" in flat_doc(command)
    assert "how," not in flat_doc(command)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_all_arguments(name: str) -> None:
    function = getattr(kdnas, name)
    assert callable(function)
    names = list(inspect.signature(function).parameters)
    assert "options" not in names
    text = inspect.getdoc(function) or ""
    assert [one for one in names if f"\n    {one}: " not in text] == []


def test_dir_lists_all_names_and_unknown_names_raise() -> None:
    assert set(kdnas.__all__) <= set(dir(kdnas))
    assert set(FUNCTIONS) | {"Session", "Client", "Arch", "SearchSpace"} == set(kdnas.__all__)
    for name in kdnas.__all__:
        assert getattr(kdnas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'destill'"):
        _ = kdnas.destill


def python(code: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, **options)


def test_import_loads_no_other_package() -> None:
    code = (
        "import sys; before = set(sys.modules); import kdnas; dir(kdnas)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print(sorted(new))"
    )
    done = python(code)
    assert done.stdout == "['kdnas']\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("first", ["import kdnas.{0}.run", "import kdnas; kdnas.{0}", "from kdnas import {0}", "pass"])
def test_packages_with_the_name_of_a_function_are_callable(name: str, first: str) -> None:
    code = (
        f"{first.format(name)}\n"
        "import kdnas\n"
        f"from kdnas import {name}\n"
        f"assert {name} is kdnas.{name}\n"
        f"try: kdnas.{name}(nonsense=1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        f"import kdnas.{name}.run\n"
        f"print(kdnas.{name}.run.{name}.__name__)\n"
        f"try: kdnas.{name}(nonsense=1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = python(code)
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"UsageError {name}", name, f"UsageError {name}"], done.stderr


@pytest.mark.slow
def test_distill_and_refine_return_results_and_print_nothing(
    tiny_teacher: Teacher, corpus_file: Path, tmp_path: Path
) -> None:
    code = """
import json, sys, kdnas
teacher, corpus, out = sys.argv[1:]
shared = {
    "teacher": teacher, "corpus": corpus, "text": {"max_sentences": 300, "seq_len": 64}, "home": out + "/home",
    "steps": 2, "batch_tokens": 256, "validations": 1, "validation_sentences": 32,
}
first = kdnas.distill(arch="2,4,48,64,relu", **shared)
second = kdnas.refine(student=first, output=out + "/student", **shared)
with open(out + "/found.json", "w") as file:
    json.dump([[str(one.path), one.results["arch"], one.exit_code] for one in (first, second)], file)
"""
    done = python(code, tiny_teacher.path, corpus_file, tmp_path, env=os.environ | {"FORCE_COLOR": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, second = json.loads((tmp_path / "found.json").read_text())
    assert Artifact.load(Path(first[0]), "distill").results["arch"] == first[1] == "2,4,48,64,relu"
    assert second[0] == str(tmp_path / "student")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(tmp_path / "student"))
    assert first[2] == second[2] == 0


def test_functions_are_cached() -> None:
    assert function_of("refine") is kdnas.refine
