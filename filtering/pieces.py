"""Writes the documents of one piece of a unit, each to the file of its fate, and counts them."""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from kdnas.filtering.commits import WORK, RunFolder
from kdnas.filtering.decision import Policy, Scored, Verdict, verdict_of
from kdnas.filtering.options import Mode
from kdnas.filtering.parts import HashedFile, LinePart, Part, TablePart
from kdnas.filtering.plan import BLOCK_UNITS, Unit, block_name
from kdnas.filtering.reading import Chunk, Document, json_safe
from kdnas.filtering.scoring import ScoredChunk
from kdnas.filtering.totals import add_document, add_gate, no_totals

KEY = "kdnas"  # name of the verdict in a dropped document


@dataclass
class PieceWriter:
    """Writes one piece.

    Args:
        folder: the run's folder.
        unit: the unit.
        piece: index of the piece.
        policy: decides about documents.
        mode: `split` or `annotate`.
    """

    folder: RunFolder
    unit: Unit
    piece: int
    policy: Policy
    mode: Mode

    def __post_init__(self) -> None:
        self.totals = no_totals(self.policy.labels)
        self._token = uuid4().hex
        self._parts: dict[str, tuple[str, Part]] = {}
        self._start = time.monotonic()

    def write(self, scored: ScoredChunk) -> None:
        """Write and count the documents of a chunk."""
        chunk = scored.chunk
        pairs = zip(scored.scored, chunk.documents, strict=True)
        verdicts = [verdict_of(one, self.policy, document.language) for one, document in pairs]
        for document, verdict in zip(chunk.documents, verdicts, strict=True):
            add_document(self.totals, document, verdict, self.policy)
            if verdict.fate == "quarantine":
                self._lines("quarantine").write_json(quarantined(document))
        if self.mode == "annotate":
            self._annotate(chunk.documents, verdicts, scored.scored)
        elif chunk.batch is not None:
            self._split_table(chunk, verdicts)
        else:
            self._split_lines(chunk.documents, verdicts)
        self.totals["sentences"] += scored.sentences
        self.totals["tokens"] += scored.tokens
        self.totals["bytes"] += chunk.bytes
        add_gate(self.totals, scored.gate)

    def finish(self) -> dict[str, Any]:
        """Make the files durable; returns the record of the piece."""
        files = {}
        for fate, (suffix, part) in self._parts.items():
            name = f"{fate}/{block_name(self.unit.number // BLOCK_UNITS)}/part-{self.unit.number:07d}-{self.piece:05d}{suffix}"
            files[name] = {"scratch": self._scratch(fate), "rows": part.rows, "sha256": part.finish()}
        self.totals["seconds"] = round(time.monotonic() - self._start, 3)
        return {"files": files, "totals": self.totals}

    def abandon(self) -> None:
        """Close and remove the files of a piece that failed."""
        for _, part in self._parts.values():
            part.abandon()

    def _annotate(
        self, documents: Sequence[Document], verdicts: Sequence[Verdict], scored: Sequence[Scored | None]
    ) -> None:
        out = self._lines("scores", ".jsonl.zst")
        for document, one in zip(documents, scored, strict=True):
            row: dict[str, Any] = {"id": document.name}
            if document.language:
                row["language"] = document.language
            if one is None:
                out.write_json(row | {"problem": document.problem, "rows": document.rows})
                continue
            whole = self.policy.whole(one.scores)
            row["scores"] = {
                label: round(float(value), 6) for label, value in zip(self.policy.labels, whole, strict=True)
            }
            if one.audited:
                row["audited"] = one.audited
            values = one.scores.astype(object)
            values[np.isnan(one.scores)] = None  # these sentences passed the gate
            pairs = zip(one.spans, values.tolist(), strict=True)
            out.write_json(row | {"sentences": [[start, end, *scores] for (start, end), scores in pairs]})

    def _split_lines(self, documents: Sequence[Document], verdicts: Sequence[Verdict]) -> None:
        for document, verdict in zip(documents, verdicts, strict=True):
            if verdict.fate == "kept":
                self._lines("kept", self.unit.suffix).write(document.raw)
            elif verdict.fate == "dropped":
                self._lines("dropped").write(flagged(document, verdict, self.unit.segments[0].file.kind == "txt"))

    def _split_table(self, chunk: Chunk, verdicts: Sequence[Verdict]) -> None:
        import pyarrow as pa

        kept, dropped = (pa.array([one.fate == fate for one in verdicts]) for fate in ("kept", "dropped"))
        if kept.true_count:
            self._table("kept", chunk.codec).write(chunk.batch.filter(kept))
        if dropped.true_count:
            rows = chunk.batch.filter(dropped)
            fields = [("label", pa.string()), ("score", pa.float64()), ("reason", pa.string())]
            records = pa.array([one.record for one in verdicts if one.fate == "dropped"], pa.struct(fields))
            self._table("dropped", chunk.codec).write(rows.append_column(free_key(rows.schema.names), records))

    def _lines(self, fate: str, suffix: str = "") -> LinePart:
        """The file of lines of a fate; by default JSONL with the compression of the input."""
        if fate not in self._parts:
            suffix = suffix or self.unit.suffix.replace(".txt", ".jsonl").replace(".parquet", ".jsonl.zst")
            self._parts[fate] = (suffix, LinePart(self._new(fate), suffix))
        part = self._parts[fate][1]
        assert isinstance(part, LinePart)
        return part

    def _table(self, fate: str, codec: str) -> TablePart:
        if fate not in self._parts:
            self._parts[fate] = (".parquet", TablePart(self._new(fate), codec))
        part = self._parts[fate][1]
        assert isinstance(part, TablePart)
        return part

    def _scratch(self, fate: str) -> str:
        return f"{self.unit.number:07d}-{self.piece:05d}-{fate}-{self._token}"

    def _new(self, fate: str) -> HashedFile:
        return HashedFile(self.folder.store.new_file(f"{WORK}/{self._scratch(fate)}"))


def quarantined(document: Document) -> dict[str, Any]:
    """JSON record of an unreadable document; bytes that are not UTF-8 are in base64."""
    where = "row" if document.file.endswith(".parquet") else "byte"
    row: dict[str, Any] = {"file": document.file, where: document.position, "reason": document.problem}
    if document.rows != 1:
        row["rows"] = document.rows
    try:
        return row | {"raw": document.raw.decode("utf-8")}
    except UnicodeDecodeError:
        return row | {"raw_base64": base64.b64encode(document.raw).decode("ascii")}


def flagged(document: Document, verdict: Verdict, is_text: bool) -> bytes:
    """The document as one JSON line with the verdict under a new key; the bytes before it stay unchanged.

    A line with NaN or Infinity, which are not JSON, is written again with strings for them.
    """
    if is_text:
        return _json({"text": document.text, KEY: verdict.record})
    may_have_key = KEY.encode() in document.raw or b"\\u" in document.raw
    record = json.loads(document.raw) if may_have_key or not document.strict else {}
    key = free_key(record)
    if not document.strict:
        return _json(json_safe(record) | {key: verdict.record})
    return document.raw.rstrip()[:-1] + b", " + _json(key) + b": " + _json(verdict.record) + b"}"


def free_key(names: Any) -> str:
    """`kdnas`, or `kdnas_2` and so on if the user's record has it."""
    number, key = 1, KEY
    while key in names:
        number += 1
        key = f"{KEY}_{number}"
    return key


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")
