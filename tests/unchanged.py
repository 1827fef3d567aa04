"""Results that a refactoring must not change: `python tests/unchanged.py record FILE.json`, later `check FILE.json`.

A plain program that pytest does not collect; it takes about four minutes on one core. It calls the commands in a temporary
folder, with fixed seeds and one thread, and records digests and short lists:

- `training`: the weights after a short distillation and after a refinement;
- `search`: the journals of replayed searches;
- `tables`: the committed latency tables as bytes, as CSV rows, and as two commands read them;
- `export`: the outputs of every exported form of a classifier and of the refined student;
- `filter`: the documents that a filter keeps and drops.

`check` prints each difference and exits with 1 if there is one. Digests of weights depend on the CPU and on the versions of the
libraries, so compare on a machine like the recorded one. `machine` describes it; a difference there is a note, not a failure.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Names that a refactoring may change: options and their values, committed files, keys of the journal, the session's module.
OPTIONS = {
    "accumulate": "--accumulate",
    "arch": "--arch",
    "batch_tokens": "--batch_tokens",
    "budget_ms": "--budget_ms",
    "calibration_sentences": "--calibration_sentences",
    "candidates": "--candidates_per_episode",
    "corpus": "--corpus",
    "episodes": "--episodes",
    "form": "--form",
    "forms": "--forms",
    "input": "--input",
    "label": "--label",
    "model": "--model",
    "output": "--output",
    "parity_sentences": "--parity_sentences",
    "precision": "--precision",
    "recipes": "--recipes",
    "replay": "--replay",
    "seed": "--seed",
    "shard_documents": "--shard_documents",
    "steps": "--steps",
    "strategy": "--strategy",
    "student": "--student",
    "table": "--table",
    "teacher": "--teacher",
    "threads": "--threads",
    "threshold": "--threshold",
    "top": "--top",
}
FORMS = ("onnxruntime-f32", "onnxruntime-int8", "openvino-f32", "openvino-int8")
RECIPES = "static-smoothquant,dynamic"  # one int8 recipe per engine, so that the result does not depend on timing
TEACHER = "builtin:minilm-l6"
ARCH = "3,12,384,384,gelu"
STRATEGIES = ("kdnas", "surrogate")
RECORDING = ROOT / "results/search/proxy-losses.csv"
SEARCH_TABLE = ROOT / "results/search/latency-table"
TABLES = {
    engine: ROOT / "results/latency" / engine / "table.csv"
    for engine in ("onnxruntime-f32", "openvino-int8", "pytorch-f32")
}
JOURNAL = "journal.jsonl"
JOURNAL_KEYS = ("arch", "loss", "latency_ms", "reward")
SESSION_MODULES = ("kdnas.export.session", "export.session")

ROWS = 2400
SEARCHED_ROWS_STEP = 12
BUDGET_FRACTIONS = (0.05, 0.25, 0.75)  # fractions of the rows within each budget
SENTENCES, DOCUMENTS, TEXTS = 800, 200, 16
DECIMALS, SHOWN_NUMBERS = 4, 4
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "onnxruntime", "openvino", "nncf")
NOT_COMPARED = ("revision", "machine")
WORDS = (
    "the a this that one every small large quick slow careful model student teacher layer sentence token "
    "window table search result value answer question engine river city garden window market letter doctor "
    "morning number story reads writes measures keeps drops finds loses follows describes changes copies "
    "answers quickly slowly often never today again before after under over near with without because while "
    "and but or if then red green heavy light early late first last open closed new old simple strange "
)


def main() -> int:
    """Record or check results; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record results that must not change, or check them.")
    parser.add_argument("mode", choices=("record", "check"))
    parser.add_argument("file", type=Path, help="JSON file of the recorded results")
    given = parser.parse_args()
    recorded = json.loads(given.file.read_text()) if given.mode == "check" else {}
    with tempfile.TemporaryDirectory(prefix="kdnas-unchanged-") as folder:
        found = collect(Path(folder))
    if given.mode == "record":
        given.file.write_text(json.dumps(found, indent=1) + "\n")
        print(f"recorded {given.file}")
        return 0
    return compare(recorded, found)


def compare(recorded: dict[str, Any], found: dict[str, Any]) -> int:
    """Print the differences; returns 1 if there are any."""
    before, now = dict(flat(recorded)), dict(flat(found))
    differences = 0
    for name in sorted({*before, *now}):
        if before.get(name) == now.get(name):
            continue
        note = name.split("/")[0] in NOT_COMPARED
        differences += not note
        print(f"{'note' if note else 'DIFFERS'} {name}: recorded {before.get(name)}, now {now.get(name)}")
    print(f"{differences} differences from {recorded.get('revision')}")
    return int(differences > 0)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every leaf of a JSON tree; a list of numbers or strings is one leaf."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{name}/{index}")
    else:
        yield name, value


def collect(work: Path) -> dict[str, Any]:
    """Run every part in a temporary folder."""
    corpus = work / "sentences.jsonl"
    write_jsonl(corpus, [{"text": text} for text in sentences(SENTENCES, seed=1)])
    found: dict[str, Any] = {"revision": revision(), "machine": machine()}
    found["tables"] = timed("tables", tables, work)
    found["search"] = timed("search", searches, work)
    found["training"], student = timed("training", training, work, corpus)
    classifier = make_classifier(work / "classifier", student)
    found["export"], exported = timed("export", exports, work, corpus, {"classifier": classifier, "student": student})
    found["filter"] = timed("filter", filtered, work, exported["classifier"])
    return found


def timed(name: str, part: Any, *arguments: Any) -> Any:
    """Call a part and print its time in seconds."""
    start = time.monotonic()
    result = part(*arguments)
    print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return result


def training(work: Path, corpus: Path) -> tuple[dict[str, Any], Path]:
    """Digests of the weights after 20 steps of distillation and 20 of refinement, and the refined student's folder."""
    common = {"teacher": TEACHER, "corpus": corpus, "steps": 20, "batch_tokens": 512, "precision": "f32", "seed": 3}
    distilled = weights(kdnas(work, "distill", arch=ARCH, **common))
    refined = weights(kdnas(work, "refine", student=distilled.parent, **common))
    return {"distill": sha256(distilled.read_bytes()), "refine": sha256(refined.read_bytes())}, refined.parent


def weights(artifact: Path) -> Path:
    """The only model.safetensors of a training artifact."""
    (file,) = artifact.rglob("model.safetensors")
    return file


def searches(work: Path) -> dict[str, Any]:
    """The journals of searches over the recorded losses."""
    found = {}
    for strategy in STRATEGIES:
        settings = {"strategy": strategy, "episodes": 6, "candidates": 5, "seed": 7}
        artifact = kdnas(work, "search", replay=RECORDING, table=SEARCH_TABLE, **settings)
        found[strategy] = [[row[key] for key in JOURNAL_KEYS] for row in read_jsonl(artifact / JOURNAL)]
    return found


def tables(work: Path) -> dict[str, Any]:
    """Each committed table as bytes, as rows, and as `recommend` and `search` read it."""
    return {engine: one_table(work / "tables" / engine, engine, path) for engine, path in TABLES.items()}


def one_table(folder: Path, engine: str, path: Path) -> dict[str, Any]:
    """Digests of one table; the committed file becomes an artifact that commands accept."""
    content = path.read_bytes()
    with path.open(newline="") as file:
        rows = [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    folder.mkdir(parents=True)
    (folder / "table.csv").write_bytes(content)
    manifest = {
        "schema": 1,
        "kind": "latency-table",
        "config": {"options": {"engine": engine}},
        "inputs": {},
        "results": {"engine": engine, "threads": 2, "teacher_latency_ms": 20.0},
        "finished": "2026-01-01T00:00:00+00:00",
        "files": {"table.csv": sha256(content)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    latencies = sorted(row["latency_ms"] for row in rows)
    recommended = {}
    for fraction in BUDGET_FRACTIONS:
        budget = latencies[int(fraction * len(rows))]
        shown = json.loads(kdnas_output(folder.parent, "recommend", budget_ms=budget, table=folder, top=ROWS))
        recommended[str(budget)] = {"rows": len(shown), "first": shown[:3], "all": digest(shown)}
    return {
        "rows": len(rows),
        "bytes": sha256(content),
        "values": digest(rows),
        "recommend": recommended,
        "search": digest(latencies_in_search(folder, rows)),
    }


def latencies_in_search(folder: Path, rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Architecture, loss, latency and reward of every twelfth row, from a random search over made-up losses.

    All 2400 rows would take minutes, because the progress of each candidate computes the hypervolume of all earlier ones.
    """
    rows = rows[::SEARCHED_ROWS_STEP]
    recording = folder.parent / f"{folder.name}.csv"
    shape = ("id", "layers", "heads", "hidden", "ffn", "activation")
    with recording.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*shape, "seed", "tokens", "loss", "seconds"])
        for row in rows:
            fields = [row[key] if key == "activation" else int(row[key]) for key in shape]
            writer.writerow([*fields, 0, 1000, round(0.1 + 0.3 * row["id"] / ROWS, 6), 0.0])
    settings = {"strategy": "random", "episodes": 1, "candidates": len(rows), "seed": 0}
    artifact = kdnas(folder.parent, "search", replay=recording, table=folder, **settings)
    found = sorted([row[key] for key in JOURNAL_KEYS] for row in read_jsonl(artifact / JOURNAL))
    require(len(found) == len(rows), f"{folder}: the search visited {len(found)} of {len(rows)} architectures")
    return found


def exports(work: Path, corpus: Path, models: dict[str, Path]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Outputs of every form of every model, and the folders of the exports."""
    long = " ".join(sentences(12, seed=5))  # longer than the classifier reads
    texts = [*sentences(TEXTS - 1, seed=4), long]
    found, folders = {}, {}
    options = {"forms": ",".join(FORMS), "recipes": RECIPES, "calibration_sentences": 64, "parity_sentences": 32}
    for name, model in models.items():
        folders[name] = kdnas(work, "export", model=model, corpus=corpus, seed=0, **options)
        found[name] = {form: outputs(folders[name], form, texts) for form in FORMS}
    return found, folders


def outputs(folder: Path, form: str, texts: list[str]) -> list[list[float]]:
    """The first numbers of each text's output (probabilities or embedding), with one text per call."""
    session = load_session()(folder, form=form, threads=1)
    answers = [session.predict([text])[0][:SHOWN_NUMBERS] for text in texts]
    return [[round(float(value), DECIMALS) + 0.0 for value in answer] for answer in answers]  # + 0.0: no -0.0


def load_session() -> Any:
    """The class `Session`, from the first module in `SESSION_MODULES` that exists."""
    import importlib

    for name in SESSION_MODULES:
        try:
            return importlib.import_module(name).Session
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    raise SystemExit(f"no session in {', '.join(SESSION_MODULES)}; name its module in SESSION_MODULES")


def make_classifier(folder: Path, student: Path) -> Path:
    """A tiny BERT classifier with random weights, scaled so that its scores differ, and the student's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(student)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.1,
        id2label={0: "fine", 1: "hap"},
        label2id={"fine": 0, "hap": 1},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():  # without scaling, all texts score 0.71 to 0.82
        model.classifier.weight.mul_(8)
        model.classifier.bias.copy_(torch.tensor([10.5, 0.0]))
    model.save_pretrained(folder)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    return folder


def filtered(work: Path, model: Path) -> dict[str, Any]:
    """Kept and dropped documents: their numbers, and the digests of the decompressed shards in order."""
    lengths = random.Random(6)
    documents = [
        {"id": index, "text": " ".join(sentences(lengths.randint(1, 9), seed=100 + index))}
        for index in range(DOCUMENTS)
    ]
    source, output = work / "documents.jsonl", work / "filtered"
    write_jsonl(source, documents)
    options = {"form": "onnxruntime-f32", "threads": 1, "label": "hap", "threshold": 0.5, "shard_documents": 60}
    kdnas(work, "filter", model=model, input=source, output=output, **options)
    found = {}
    for fate in ("kept", "dropped"):
        content = b"".join(decompressed(file) for file in sorted((output / fate).iterdir()))
        ids = [json.loads(line)["id"] for line in content.splitlines()]
        require(bool(ids), f"filter: no document was {fate}; change the threshold")
        found[fate] = {"documents": len(ids), "ids": digest(ids), "content": sha256(content)}
    return found


def decompressed(file: Path) -> bytes:
    """The content of a shard, .gz or plain."""
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content


def sentences(count: int, seed: int) -> list[str]:
    """Different made-up sentences, the same ones for each seed."""
    chance, known = random.Random(seed), WORDS.split()
    found: dict[str, None] = {}
    while len(found) < count:
        words = [chance.choice(known) for _ in range(chance.randint(4, 24))]
        found[f"{' '.join(words).capitalize()}."] = None
    return list(found)


def kdnas(work: Path, command: str, **options: Any) -> Path:
    """Run a command; returns the folder that it prints."""
    path = Path(kdnas_output(work, command, **options))
    return path if path.is_absolute() else work / path


def kdnas_output(work: Path, command: str, **options: Any) -> str:
    """Run a command; returns the last line of its output."""
    arguments = [text for name, value in options.items() for text in (OPTIONS[name], str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KDNAS_")}
    environment["KDNAS_HOME"] = str(work / "home")
    line = [sys.executable, "-m", "kdnas", *command.split(), *arguments]
    done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True)
    require(done.returncode == 0, f"{' '.join(line)}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def require(holds: bool, message: str) -> None:
    """Exit with a message unless a condition holds."""
    if not holds:
        raise SystemExit(message)


def number(text: str) -> float | str:
    """The text as a number if possible."""
    try:
        return float(text)
    except ValueError:
        return text


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sha256(content: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return sha256(json.dumps(value, sort_keys=True).encode())


def revision() -> str:
    """The commit of the checkout, with `+` if tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = [*git, "status", "--porcelain", "--untracked-files=no"]
    return head + ("+" if subprocess.run(changed, capture_output=True, text=True, check=True).stdout.strip() else "")


def machine() -> dict[str, str]:
    """CPU instructions and library versions, on which digests of weights depend besides the code."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"instructions": capability} | {name: metadata.version(name) for name in PACKAGES}


if __name__ == "__main__":
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CI": "true",  # no telemetry of NNCF and OpenVINO: its forked sender can block the exit of an export
    }
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
