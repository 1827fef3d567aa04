"""`kdnas autodistil`: train a family of students that share their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kdnas.autodistil.family import KIND, member_rows, write_rows, write_space
from kdnas.autodistil.latency import Latency, latencies, require_table
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.recipes import Planned, paper, planned, require_trainable
from kdnas.distill.building import build_stage, common_corpus, deciding, needed_bytes, require_possible, settled
from kdnas.errors import UsageError
from kdnas.models.arch import Activation, Arch
from kdnas.models.pooling import pooling_of
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.text.corpus import Corpus
from kdnas.text.readers import TextOptions

PAGE = "family.html"


def run_autodistil(
    home: Path, teacher: Teacher, corpus: Corpus, nets: Planned, table: LatencyTable | None = None
) -> Artifact:
    """Train the nets of a family one after the other, and score their members.

    Args:
        home: root folder of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        nets: sub-spaces with the options of their training, from `kdnas.autodistil.recipes`.
        table: latency table of the teacher, for the latencies of the members.

    Returns:
        Artifact with `space.json`, `family.csv`, `family.html`, and for each net a folder with the stock model `net/`,
        `projections.safetensors` and `history.jsonl`.

    Raises:
        UsageError: a net cannot be trained from this teacher, or the table has no rows for a member.
    """
    require_trainable(nets, teacher)
    _require_possible(nets)
    pooling_of(teacher.path)  # members get the same pooling, so reject unsupported pooling now
    nets = [(space, settled(options, corpus, teacher)) for space, options in nets]
    members = [arch for space, _ in nets for arch in space.members]
    known = {} if table is None else latencies(table, members)

    def work(folder: Path) -> dict[str, Any]:
        return _train(folder, home, teacher, corpus, nets, known)

    config = {"nets": [{"space": space.to_dict(), "options": deciding(options)} for space, options in nets]}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest} | ({"table": table.digest} if table else {})
    label = f"{teacher.label}-{'-'.join(space.name for space, _ in nets)}"
    needed = sum(needed_bytes(space.largest, teacher.student_sizes.rows) for space, _ in nets)
    return build_stage(home, KIND, label, config, inputs, work, needed)


def _train(
    folder: Path, home: Path, teacher: Teacher, corpus: Corpus, nets: Planned, known: Mapping[Arch, Latency]
) -> dict[str, Any]:
    from kdnas.autodistil.page import write_family_page
    from kdnas.autodistil.training import train_net
    from kdnas.distill.loop import use_all_cores
    from kdnas.distill.processes import processes

    use_all_cores()
    results, scores = [], dict[Arch, dict[str, Any]]()
    for space, options in nets:
        found = dict(train_net(folder / space.name, home, teacher, corpus, space, options))
        scores |= {Arch.parse(arch): score for arch, score in found.pop("members").items()}
        results.append(found)
    spaces = [space for space, _ in nets]
    losses = {arch: score["loss"] for arch, score in scores.items()}
    if processes().is_main_process:
        write_space(folder, spaces, teacher)
        rows = member_rows(spaces, scores, teacher.student_sizes.rows, known)
        write_rows(folder, rows)
        write_family_page(folder / PAGE, rows, teacher.spec, corpus.name)
    best, worst = (choose(losses, key=losses.__getitem__) for choose in (min, max))
    return {
        "members": len(losses),
        "mean_loss": sum(losses.values()) / len(losses),
        "best": {"arch": str(best), "loss": losses[best]},
        "worst": {"arch": str(worst), "loss": losses[worst]},
        "nets": results,
    }


def _require_possible(nets: Planned) -> None:
    """Raise UsageError as `require_possible`, or if several processes should find the number of updates themselves."""
    from kdnas.distill.processes import processes

    for _, options in nets:
        require_possible(options)
        if processes().num_processes > 1 and options.steps is None:
            raise UsageError("with several processes the number of updates cannot be measured; give it with --steps")


def autodistil(
    options: FamilyOptions,
    layers: tuple[int, ...] = (3, 4, 5),
    ffn: tuple[int, ...] = (96, 192, 384, 576, 768, 1024),
    heads: tuple[int, ...] | None = None,
    hidden: int | None = None,
    activation: Activation | None = None,
    sub_spaces: int = 1,
    recipe: Literal["kdnas", "paper"] = "kdnas",
    paper_sub_spaces: tuple[str, ...] = ("base", "small", "tiny"),
    table: Path | None = None,
    allow_other_teacher: bool = False,
    allow_other_host: bool = False,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Train a family of students that share their weights; `kdnas extract` writes any of them as a stock model.

    Args:
        options: training options.
        layers: depths of the members.
        ffn: feed-forward sizes of the members.
        heads: numbers of attention heads of the members; null uses the teacher's.
        hidden: hidden size of all members; null uses the teacher's.
        activation: feed-forward activation of all members; null uses the teacher's.
        sub_spaces: number of nets over which the depths are divided; each gets an equal part of the minutes.
        recipe: `paper` trains the published sub-spaces by the published method (arXiv 2201.12507); it replaces the options of
            the members, their schedule, the objective, the learning rate and the weight decay.
        paper_sub_spaces: sub-spaces of the recipe `paper`: base, small, tiny.
        table: folder that `kdnas latency-table` printed; adds the members' latencies to the results and the page.
        allow_other_teacher: use a table that was measured with another teacher; by default it is rejected.
        allow_other_host: use a table that was measured on another host; by default it is rejected.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a local file or folder, several of both separated by commas, or a hub id.
        text: how to read the corpus.
        home: root of all artifacts.
        output: folder for a copy of the family; null keeps it only below `home`.
    """
    require_output(output, KIND)
    resolved = resolve_teacher(teacher, home)
    if recipe == "paper":
        nets = paper(resolved, options, paper_sub_spaces)
    else:
        nets = planned(resolved, options, layers, ffn, heads, hidden, activation, sub_spaces)
    require_trainable(nets, resolved)  # before the corpus is built, as all checks below
    _require_possible(nets)
    known = None
    if table is not None:
        known = LatencyTable.load(table)
        require_table(known, resolved, allow_other_teacher, allow_other_host, KIND)
        latencies(known, [arch for space, _ in nets for arch in space.members])
    built = common_corpus(home, corpus, text, resolved)
    return deliver(run_autodistil(home, resolved, built, nets, known), output)
