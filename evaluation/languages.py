"""The languages that a run teaches and scores: `--taught` and `--languages` of `kdnas suites`."""

from collections.abc import Sequence
from dataclasses import replace

from kdnas.errors import UsageError
from kdnas.evaluation.spec import Spec


def in_languages(specs: Sequence[Spec], taught: Sequence[str], scored: Sequence[str]) -> list[Spec]:
    """The tasks, restricted to these languages. The name of a task says what differs from its default.

    A task may lack some of the languages, but not all of them.

    Args:
        specs: tasks.
        taught: codes of the languages to train on; empty keeps each task's own.
        scored: codes of the languages to score; empty keeps all.

    Raises:
        UsageError: a code is given twice, no task has a language, or a task has none of them.
    """
    for option, given in (("taught", taught), ("languages", scored)):
        if len(set(given)) < len(given):
            raise UsageError(f"{option} is {','.join(given)}; give each language once")
    _require("taught", taught, {spec.name: spec.teachable for spec in specs})
    _require("languages", scored, {spec.name: spec.languages for spec in specs})
    return [_restricted(spec, taught, scored) for spec in specs]


def _require(option: str, given: Sequence[str], known: dict[str, tuple[str, ...]]) -> None:
    """Raise UsageError unless each language is one of some task, and each task has one of the languages."""
    allowed = "; ".join(f"{task} has {', '.join(codes) or 'one language'}" for task, codes in known.items())
    of_any = {code for codes in known.values() for code in codes}
    if unknown := [code for code in given if code not in of_any]:
        raise UsageError(f"{option} has {', '.join(unknown)}, which no chosen task has: {allowed}")
    for task, codes in known.items():
        if given and not set(given) & set(codes):
            has = f"it has {', '.join(codes)}" if codes else "its rows are in one language"
            raise UsageError(f"{option} has no language of {task}: {has}; leave the task out, or --{option}")


def _restricted(spec: Spec, taught: Sequence[str], scored: Sequence[str]) -> Spec:
    # In the task's order: the order in which a user gives the languages makes no other run.
    teach = tuple(code for code in spec.teachable if code in taught) or spec.taught_languages
    score = tuple(code for code in spec.languages if code in scored) or spec.languages
    changes = [f"taught {', '.join(teach)}"] if set(teach) != set(spec.taught_languages) else []
    changes += [f"scored {', '.join(score)}"] if score != spec.languages else []
    if not changes:
        return spec
    return replace(spec, name=f"{spec.name} ({'; '.join(changes)})", taught=teach, languages=score)
