"""Options of a short run, and the comparison of two runs, which the tests of the training stages share."""

from kdnas.models.arch import Arch
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import read_jsonl

ARCH = Arch(2, 4, 24, 64)
STEPS = 15
COMMON = {
    "steps": STEPS,
    "batch_tokens": 512,
    "accumulate": 2,
    "validations": 3,
    "validation_sentences": 60,
    "log_every": 4,
    "checkpoint_seconds": 0.0,
    "dropout": True,  # makes results depend on the random state
}


def rows_without_times(artifact: Artifact) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(artifact.path / "history.jsonl")]


def assert_same_run(one: Artifact, other: Artifact) -> None:
    for name in one.manifest["files"]:
        if name.endswith(".safetensors"):
            assert file_sha256(one.path / name) == file_sha256(other.path / name), name
    assert rows_without_times(one) == rows_without_times(other)
