"""`kdnas extract`: one member of a family as a stock Hugging Face folder, without training."""

import json
import math
import tempfile
from pathlib import Path

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.family import Family
from kdnas.autodistil.latency import latencies, require_table
from kdnas.autodistil.sub_space import SubSpace, require_member
from kdnas.distill.student_folder import METADATA
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.card import inherited, with_metadata
from kdnas.models.family import family_of
from kdnas.models.folder import save_tensors
from kdnas.models.table import LatencyTable
from kdnas.store.outcome import Outcome
from kdnas.store.output import copy_output, files_below, require_output

CARD = """# {arch}

A text encoder: `{arch}` (layers, heads, hidden size, feed-forward size, activation), a member of a family that kdnas trained
(AutoDistil, arXiv 2201.12507). It was not trained further.

- Teacher: `{teacher}`
- Held-out loss: {loss:.4f}

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("path/of/this/folder", add_pooling_layer=False)
tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")
```
"""


def extract(
    family: Path,
    output: Path,
    arch: str | None = None,
    budget_ms: float | None = None,
    table: Path | None = None,
    allow_other_teacher: bool = False,
    allow_other_host: bool = False,
) -> Outcome:
    """Write one member of a family as a stock model, ready for `distill --student`, `export` and `suites`.

    Args:
        family: folder that `kdnas autodistil` printed.
        output: folder for the model.
        arch: layers,heads,hidden,ffn,activation of the member. Give either this or `budget_ms`.
        budget_ms: largest allowed mean latency in ms; the member with the lowest held-out loss within it is written.
        table: folder that `kdnas latency-table` printed, for `budget_ms`; by default the latencies in the family are used, if it
            was trained with a table.
        allow_other_teacher: use a table that was measured with another teacher; by default it is rejected.
        allow_other_host: use a table that was measured on another host; by default it is rejected.

    Raises:
        UsageError: the architecture is not in the family, nothing fits the budget, or the table is of another teacher or host.
        KdnasError: the family is damaged.
    """
    if (arch is None) == (budget_ms is None):
        raise UsageError("give --arch for one member, or --budget-ms for the best one that fits, and not both")
    if budget_ms is not None and not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(
            f"budget_ms is {budget_ms:g}; a number of milliseconds above 0 is needed, as in --budget-ms 1.5"
        )
    require_output(output, "extract")
    wanted = Arch.parse(arch) if arch is not None else None
    opened = Family.load(family)
    if wanted is None:
        assert budget_ms is not None
        wanted = within(opened, budget_ms, _latencies(opened, table, allow_other_teacher, allow_other_host))
    _write(opened, wanted, output)
    row = opened.rows[wanted]
    return Outcome(output, {"arch": str(wanted), "loss": row["loss"], "family": str(family)})


def within(family: Family, budget_ms: float, latency_ms: dict[Arch, float]) -> Arch:
    """The member with the lowest held-out loss that is at most this slow; of equal ones the fastest.

    Raises:
        UsageError: no member is that fast.
    """
    fitting = [arch for arch in family.members if latency_ms[arch] <= budget_ms]
    if not fitting:
        fastest = min(family.members, key=latency_ms.__getitem__)
        raise UsageError(
            f"budget_ms is {budget_ms:g}: no member of {family.path} is that fast; the fastest is {fastest} with "
            f"{latency_ms[fastest]:.4f} ms; give at least {math.ceil(latency_ms[fastest] * 100) / 100:g}"
        )
    return min(fitting, key=lambda arch: (family.rows[arch]["loss"], latency_ms[arch]))


def _latencies(family: Family, table: Path | None, other_teacher: bool, other_host: bool) -> dict[Arch, float]:
    if table is not None:
        known = LatencyTable.load(table)
        require_table(known, family.teacher, other_teacher, other_host, "extract")
        return {arch: found.ms for arch, found in latencies(known, family.members).items()}
    recorded = {arch: row["latency_ms"] for arch, row in family.rows.items()}
    if None in recorded.values():
        raise UsageError(
            f"{family.path}: the family has no latencies; give a table with --table (`kdnas latency-table` measures one)"
        )
    return recorded


def _write(family: Family, arch: Arch, output: Path) -> None:
    space = require_member(arch, family.spaces)
    card = CARD.format(arch=arch, teacher=family.teacher.spec, loss=family.rows[arch]["loss"])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".extract-") as scratch:
        folder = Path(scratch) / "student"
        write_member(folder, family.net(space), space, arch, card)
        copy_output({file: folder / file for file in files_below(folder)}, output, "extract")


def write_member(folder: Path, net: Path, space: SubSpace, arch: Arch, card: str) -> None:
    """Write a member as a stock Hugging Face folder. Neither torch nor transformers is imported, which would take seconds.

    Args:
        folder: folder to write; an existing one is replaced.
        net: stock folder of the net.
        space: the members of the net.
        arch: the member.
        card: text of README.md, without metadata.
    """
    from safetensors.numpy import load_file

    tensors = sliced(load_file(net / "model.safetensors"), space, arch)
    config = json.loads((net / "config.json").read_text())
    save_tensors(
        folder, tensors, family_of(config).resized(config, arch), net, with_metadata(inherited(net) | METADATA, card)
    )
