"""`--output DIR`: a result as plain files in a folder of the user's choice, beside the cache below the root of artifacts."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.store.artifact import Artifact, disk_errors, write_json
from kdnas.store.outcome import Outcome, Result
from kdnas.store.progress import is_first_process

RECORD = "output.json"  # what we wrote into the folder: its kind and its files
# Folders of artifacts that hold a model: of distill and refine, and of pretrain. With `--output` the model alone is the result.
MODELS = ("student", "teacher")


def require_output(output: Path | None, kind: str) -> None:
    """Refuse a folder that a result of this kind may not be written to. Called before any work.

    Raises:
        UsageError: a file, or a folder that holds something else than an earlier output of the same kind.
    """
    if output is None or not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"output '{output}': it is a file; give a new or an empty folder")
    known = _record(output).get("kind")
    if known is None and any(output.iterdir()):
        raise UsageError(f"output '{output}': the folder holds other files; give a new or an empty one")
    if known not in (None, kind):
        raise UsageError(f"output '{output}': it holds a '{known}', this is a '{kind}'; give a new or an empty folder")


def deliver(artifact: Artifact, output: Path | None) -> Result:
    """Copy an artifact to `output`, and return the copy; without `output` return the artifact.

    Of a trained model the stock Hugging Face folder is the result, of any other artifact all its files.

    Raises:
        UsageError: as `require_output`.
    """
    if output is None:
        return artifact
    model = next((artifact.path / name for name in MODELS if (artifact.path / name).is_dir()), artifact.path)
    kind = str(artifact.manifest["kind"])
    copy_output({file: model / file for file in files_below(model)}, output, kind)
    return Outcome(output, artifact.results)


def deliver_all(artifacts: Sequence[Artifact], output: Path | None) -> list[Result]:
    """As `deliver`, of several artifacts of one kind, each to a folder of its own name below `output`."""
    if output is None:
        return list(artifacts)
    files = {
        f"{artifact.path.name}/{file}": artifact.path / file
        for artifact in artifacts
        for file in files_below(artifact.path)
    }
    copy_output(files, output, str(artifacts[0].manifest["kind"]))
    return [Outcome(output / artifact.path.name, artifact.results) for artifact in artifacts]


def files_below(folder: Path) -> Iterator[str]:
    """Every file below a folder by its path in it; links to folders are followed."""
    for root, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            yield str((Path(root) / name).relative_to(folder))


def copy_output(files: dict[str, Path], output: Path, kind: str) -> None:
    """Copy files to a folder and remove what an earlier output of the same kind left there; other files stay.

    Args:
        files: source of each file by its path below `output`.
        output: new, empty, or an earlier output.
        kind: of the artifact.

    Raises:
        UsageError: as `require_output`.
    """
    if not is_first_process():
        return
    require_output(output, kind)
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        old = set(_record(output).get("files", []))
        # Written first, with the files of both: an interrupted copy is still known as ours.
        write_json(output / RECORD, {"kind": kind, "files": sorted(old | set(files))})
        for name, source in files.items():
            target = output / name
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(target.name + ".tmp")
            shutil.copyfile(source, scratch)
            os.replace(scratch, target)
        for name in old - set(files):
            (output / name).unlink(missing_ok=True)
        write_json(output / RECORD, {"kind": kind, "files": sorted(files)})


def _record(output: Path) -> dict[str, list[str]]:
    try:
        record = json.loads((output / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
