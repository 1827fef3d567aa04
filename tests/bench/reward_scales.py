"""Which architecture does Eq. 4 recommend on recorded losses, for each scale of the loss?

Run as `python tests/bench/reward_scales.py [RECORDING [TABLE [CORPUS]]]`; by default the recording and the table of
results/search, and the packaged corpus. It prints three rows of a table.

A recording holds normalised losses only: the mean over a student's pairs of layers of the raw error over the variance of the
teacher's layer. The raw scales are estimated from it: every pair of a student is assumed to leave the same fraction of its
layer's variance unexplained, so the raw error of a pair is that fraction times the measured variance.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from kdnas.distill.hidden_state import TeacherStates, teacher_layer_variance
from kdnas.distill.mapping import Mapping as LayerMapping
from kdnas.distill.mapping import layer_pairs
from kdnas.distill.validation import sample_batches
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import BUILTIN, load_encoder, resolve_teacher
from kdnas.search.recording import read_recording
from kdnas.search.reward import reward
from kdnas.text.corpus import build_corpus
from kdnas.text.readers import TextOptions

SCALES = ("normalised", "mean", "sum")
SEARCH = Path(__file__).resolve().parents[2] / "results" / "search"
SENTENCES = 1000  # for the teacher's variance


def scaled_loss(loss: float, arch: Arch, variances: Mapping[int, float], scale: str) -> float:
    """The loss of an architecture in another scale, if every pair leaves the fraction `loss` of its layer unexplained.

    Args:
        loss: recorded, normalised.
        arch: the student.
        variances: variance of each teacher layer, 1-based; their number is the teacher's depth.
        scale: one of `SCALES`.
    """
    if scale == "normalised":
        return loss
    pairs = layer_pairs(arch.layers, len(variances), LayerMapping.UNIFORM_LAST)
    raw = [loss * variances[layer] for _, layer in pairs]
    return sum(raw) / (len(raw) if scale == "mean" else 1)


def recommended(
    losses: Mapping[Arch, float], table: LatencyTable, variances: Mapping[int, float], scale: str
) -> tuple[Arch, float, float]:
    """The architecture with the best reward in a scale, its loss in that scale, and the reward."""
    found = []
    for arch, loss in losses.items():
        scaled = scaled_loss(loss, arch, variances, scale)
        found.append((reward(scaled, table.latency_ms(arch), table.teacher_latency_ms), arch, scaled))
    best, arch, scaled = max(found, key=lambda row: row[0])
    return arch, scaled, best


def layer_variances(corpus: str, home: Path) -> dict[int, float]:
    """Variance of each layer of the packaged teacher on sentences of a corpus."""
    teacher = resolve_teacher(BUILTIN)
    built = build_corpus(home, corpus, TextOptions(max_sentences=5 * SENTENCES), teacher)
    encoder = load_encoder(teacher.path)
    batches = sample_batches(built.train, SENTENCES, 4096, built.pad_id, encoder.device)
    return teacher_layer_variance(TeacherStates(encoder, range(1, teacher.layers + 1)), batches)


def main(recording: Path, folder: Path, corpus: str) -> None:
    """Print the variances and the table."""
    found, table = read_recording(recording), LatencyTable.load(folder)
    losses = {arch: found(arch).loss for arch in found.within(SearchSpace())}
    variances = layer_variances(corpus, Path("artifacts"))
    print("variance of the teacher's layers:", ", ".join(f"{value:.4f}" for value in variances.values()))
    print(f"{len(losses)} architectures; the teacher takes {table.teacher_latency_ms:.2f} ms")
    print("\n| scale of the loss | recommended | its loss | its latency, ms | reward |\n|---|---|---:|---:|---:|")
    for scale in SCALES:
        arch, loss, best = recommended(losses, table, variances, scale)
        print(f"| `{scale}` | `{arch}` | {loss:.4f} | {table.latency_ms(arch):.2f} | {best:.3f} |")


if __name__ == "__main__":
    given = sys.argv[1:] + ["", "", ""][len(sys.argv) - 1 :]
    main(
        Path(given[0] or SEARCH / "proxy-losses.csv"),
        Path(given[1] or SEARCH / "latency-table"),
        given[2] or "builtin:pydocs",
    )
