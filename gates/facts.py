"""Facts that need no timing: sizes, operators, outputs and tables. They must not change by accident."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.engine import engine_of
from kdnas.models.table import FILE, read_rows
from kdnas.store.digest import file_sha256

Facts = dict[str, Any]
ARCHS = ("3,12,288,384,gelu", "4,12,576,768,gelu", "6,12,768,3072,silu")
LENGTH = 32  # sequence length in tokens at which operations are counted
TOLERANCE = 1e-3  # allowed difference of outputs, which other CPUs may round differently
SENTENCES = ("Returns the inverse of a square matrix.", "déjà vu — naïve café", "word " * 40)
FORMS = ("onnxruntime-f32", "openvino-f32", "openvino-int8")
SHOWN = 40  # maximum number of differences printed


def collect(scratch: Path, tables: Path) -> Facts:
    """All facts of this checkout.

    Args:
        scratch: working folder for the export of a model with fixed random weights.
        tables: folder with the committed latency tables, each as `NAME/table.csv`.
    """
    return {**shape_facts(), **export_facts(scratch), **table_facts(tables)}


def shape_facts() -> Facts:
    """Number of parameters and operations of some students of the packaged teacher."""
    from kdnas.models.student import student_config
    from kdnas.models.teacher import BUILTIN, load_config, resolve_teacher
    from kdnas.pipeline.plan import parameters

    teacher, facts = load_config(resolve_teacher(BUILTIN).path), Facts()
    for name in ARCHS:
        arch = Arch.parse(name)
        facts[f"shape/{name}/parameters"] = parameters(student_config(arch, teacher))
        facts[f"shape/{name}/flops"] = arch.flops(LENGTH)
    return facts


def export_facts(scratch: Path) -> Facts:
    """Operators, bytes, token ids and outputs of a model with fixed random weights, in each form."""
    from kdnas.export.folder import FORMS as GRAPHS
    from kdnas.export.folder import graph_files
    from kdnas.export.session import Session

    folder, facts = _exported(scratch), Facts()
    for form in FORMS:
        graph = folder / GRAPHS[form]
        facts[f"export/{form}/operators"] = operators_of(graph)
        facts[f"export/{form}/bytes"] = sum(file.stat().st_size for file in graph_files(graph) if file.suffix != ".xml")
        if not engine_of(form).quantised:  # int8 kernels saturate on some CPUs and not on others
            session = Session(folder, form, threads=1)
            outputs = session.predict(list(SENTENCES))
            facts[f"export/{form}/outputs"] = [round(float(value), 6) for value in np.asarray(outputs)[:, :4].ravel()]
    ids = json.dumps([list(map(int, row)) for row in session.encoder.ids(list(SENTENCES))])
    facts["export/token_ids"] = hashlib.sha256(ids.encode()).hexdigest()
    return facts


def _exported(scratch: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    from kdnas.export.checkpoint import open_checkpoint
    from kdnas.export.options import ExportOptions
    from kdnas.export.run import run_export
    from kdnas.models.teacher import BUILTIN, resolve_teacher
    from kdnas.text.corpus import build_corpus
    from kdnas.text.readers import TextOptions

    torch.manual_seed(0)
    teacher, folder = resolve_teacher(BUILTIN), scratch / "model"
    config = BertConfig(
        vocab_size=teacher.config["vocab_size"], num_hidden_layers=2, num_attention_heads=4, hidden_size=64,
        intermediate_size=128,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (folder / name).write_bytes((teacher.path / name).read_bytes())
    rng = np.random.default_rng(0)
    words = ("the", "model", "returns", "an", "array", "of", "integers", "while", "reading", "files")
    lines = [" ".join(rng.choice(words, int(rng.integers(4, 30)))) + f" {number}" for number in range(200)]
    (scratch / "texts.txt").write_text("\n".join(lines))
    corpus = build_corpus(scratch, str(scratch / "texts.txt"), TextOptions(), resolve_teacher(str(folder)))
    # A single recipe: choosing the fastest of several would depend on timing.
    options = ExportOptions(calibration_sentences=16, parity_sentences=8, forms=FORMS, recipes=("static",))
    return run_export(scratch, folder, open_checkpoint(str(folder)).digest, corpus, options).path


def operators_of(graph: Path) -> dict[str, int]:
    """Number of operators of each kind in an ONNX or OpenVINO graph, without constants."""
    if graph.suffix == ".xml":
        kinds = [layer.attrib["type"] for layer in ElementTree.parse(graph).iter("layer")]
    else:
        import onnx

        kinds = [node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node]
    return dict(sorted(Counter(kind for kind in kinds if kind not in ("Const", "Constant")).items()))


def table_facts(tables: Path) -> Facts:
    """Hash of each committed latency table, and its number of `not_monotonic` pairs."""
    facts = Facts()
    for file in sorted(tables.glob(f"*/{FILE}")):
        latencies = {row.arch: row.latency_ms for row in read_rows(file)}
        facts[f"table/{file.parent.name}/sha256"] = file_sha256(file)
        facts[f"table/{file.parent.name}/not_monotonic"] = not_monotonic(latencies)
    return facts


def not_monotonic(latencies: Mapping[Arch, float]) -> int:
    """Number of pairs of architectures that differ in one size only and whose larger one is faster."""
    count = 0
    for name in ("layers", "hidden", "ffn"):
        rest = [field for field in ("layers", "heads", "hidden", "ffn", "activation") if field != name]
        groups: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
        for arch, latency in latencies.items():
            groups.setdefault(tuple(getattr(arch, field) for field in rest), []).append((getattr(arch, name), latency))
        for values in groups.values():
            ordered = [latency for _, latency in sorted(values)]
            count += sum(after < before for before, after in pairwise(ordered))
    return count


def differences(known: Facts, found: Facts) -> list[str]:
    """One line for each fact that changed; outputs may differ by `TOLERANCE`."""
    lines = []
    for name in sorted(known.keys() | found.keys()):
        before, after = known.get(name), found.get(name)
        if not _equal(before, after):
            lines.append(f"{name}: {_short(before)} before, {_short(after)} now")
    return lines


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return all(
            math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
            for one, other in zip(before, after, strict=True)
        )
    return bool(before == after)


def _short(value: Any) -> str:
    return "nothing" if value is None else f"{json.dumps(value):.200}"


def read_facts(file: Path) -> Facts:
    """Facts that `kdnas gate check --write` wrote.

    Raises:
        UsageError: the file is missing or is not JSON.
    """
    try:
        found: Facts = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file}: cannot read the committed facts ({error}); write them with `kdnas gate check --write`"
        ) from error
    return found
