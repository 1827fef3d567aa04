"""`--output DIR`: copy a result as plain files to a folder of the user's choice, in addition to the artifact."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.store.artifact import Artifact
from kdnas.store.disk import disk_errors
from kdnas.store.json_files import write_json
from kdnas.store.outcome import Outcome, Result
from kdnas.store.progress import is_first_process

RECORD = "output.json"  # record of an output: its kind and its files
# Model folders of artifacts: of distill and refine, and of pretrain. `--output` copies only the model.
MODELS = ("student", "teacher")


def require_output(output: Path | None, kind: str) -> None:
    """Check that a result of this kind may be written to the folder. Call it before any work.

    Raises:
        UsageError: `output` is a file, or a folder with other content than an earlier output of the same kind.
    """
    if output is None or not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"output '{output}': it is a file; give a new or an empty folder")
    known = _record(output).get("kind")
    if known is None and any(output.iterdir()):
        raise UsageError(f"output '{output}': the folder contains other files; give a new or an empty one")
    if known not in (None, kind):
        raise UsageError(
            f"output '{output}': it contains a '{known}', this is a '{kind}'; give a new or an empty folder"
        )


def deliver(artifact: Artifact, output: Path | None) -> Result:
    """Copy an artifact to `output` and return the copy; without `output` return the artifact.

    For a trained model the copy is its Hugging Face folder, for any other artifact it has all files.

    Raises:
        UsageError: as in `require_output`.
    """
    if output is None:
        return artifact
    content = content_of(artifact)
    copy_output({file: content / file for file in files_below(content)}, output, str(artifact.manifest["kind"]))
    return Outcome(output, artifact.results)


def content_of(artifact: Artifact) -> Path:
    """The folder that `--output` copies: that of the model, if the artifact has one."""
    return next((artifact.path / name for name in MODELS if (artifact.path / name).is_dir()), artifact.path)


def deliver_all(artifacts: Sequence[Artifact], output: Path | None) -> list[Result]:
    """Like `deliver`, for several artifacts of one kind; each is copied to a folder with its name below `output`."""
    if output is None:
        return list(artifacts)
    files = {
        f"{artifact.path.name}/{file}": content_of(artifact) / file
        for artifact in artifacts
        for file in files_below(content_of(artifact))
    }
    copy_output(files, output, str(artifacts[0].manifest["kind"]))
    return [Outcome(output / artifact.path.name, artifact.results) for artifact in artifacts]


def files_below(folder: Path) -> Iterator[str]:
    """Path of every file below a folder, relative to the folder; links to folders are followed."""
    for root, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            yield str((Path(root) / name).relative_to(folder))


def copy_output(files: dict[str, Path], output: Path, kind: str) -> None:
    """Copy files to a folder and remove the other files of an earlier output of the same kind, with folders that become empty.

    Args:
        files: source of each file by its path below `output`.
        output: folder that is new, empty or an earlier output.
        kind: kind of the artifact.

    Raises:
        UsageError: as in `require_output`.
    """
    if not is_first_process():
        return
    require_output(output, kind)
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        old = set(_record(output).get("files", []))
        # Write the record first, with old and new files, so that an interrupted copy is still recognised as an output.
        write_json(output / RECORD, {"kind": kind, "files": sorted(old | set(files))})
        for name, source in files.items():
            target = output / name
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(target.name + ".tmp")
            shutil.copyfile(source, scratch)
            os.replace(scratch, target)
        for name in old - set(files):
            (output / name).unlink(missing_ok=True)
            _remove_empty_folders((output / name).parent, output)
        write_json(output / RECORD, {"kind": kind, "files": sorted(files)})


def _remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove a folder below `root` and its parents there, as far as they are empty."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _record(output: Path) -> dict[str, list[str]]:
    try:
        record = json.loads((output / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
