"""What the ways of `family_study.py` have in common: teacher, corpus, members, time and options."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdnas.autodistil.options import FamilyOptions, Schedule
from kdnas.autodistil.recipes import planned
from kdnas.autodistil.sub_space import SubSpace
from kdnas.distill.building import settled
from kdnas.distill.options import DistillOptions
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.digest import digest_of
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

MEMBERS_PER_PASS = 4
# The study scores all students itself, so training validates little.
CHECKS = {"validations": 1, "validation_sentences": 64}


@dataclass(frozen=True)
class Setting:
    """The setting of a study.

    Args:
        home: root of all artifacts of the study; the same command resumes there.
        teacher: the teacher.
        corpus: sentences, tokenised for this teacher.
        layers: depths of the members.
        ffn: feed-forward sizes of the members.
        minutes: training time of each way.
        batch_tokens: padded tokens per batch.
        proxy_steps: updates of a short distillation of each member.
        reference_steps: updates of a long distillation of each member alone; 0 for none.
        counts: numbers of separate students between which the break-even is looked for.
        chain_first: fraction of the chain's time that its largest student gets.
    """

    home: Path
    teacher: Teacher
    corpus: Corpus
    layers: tuple[int, ...]
    ffn: tuple[int, ...]
    minutes: float
    batch_tokens: int
    proxy_steps: int
    reference_steps: int
    counts: tuple[int, ...]
    chain_first: float

    @property
    def seconds(self) -> float:
        """Training time of each way."""
        return 60 * self.minutes

    @property
    def space(self) -> SubSpace:
        """The members as one sub-space of the teacher's width, heads and activation."""
        return self.nets(1, 0, "k-per-pass")[0][0]

    @property
    def archs(self) -> tuple[Arch, ...]:
        """The members, from large to small."""
        return self.space.members

    @property
    def probes(self) -> list[Arch]:
        """The members of the break-even: the largest, the middle one and the smallest."""
        archs = self.archs
        return list(dict.fromkeys((archs[0], archs[len(archs) // 2], archs[-1])))

    @property
    def members_digest(self) -> str:
        """Identity of the teacher, the corpus and the members, and of what else decides the speed of an update."""
        parts = [self.teacher.digest, self.corpus.digest, [str(arch) for arch in self.archs], self.batch_tokens]
        return digest_of(parts)[:8]

    @property
    def digest(self) -> str:
        """Identity of the whole setting, for the rows of the results."""
        steps = [self.proxy_steps, self.reference_steps]
        return digest_of([self.members_digest, self.minutes, self.chain_first, *steps])[:8]

    def nets(self, count: int, seed: int, schedule: Schedule, **changes: Any) -> list[tuple[SubSpace, FamilyOptions]]:
        """The nets of a family whose depths are divided over `count` nets; each needs its own number of `steps`."""
        options = FamilyOptions(
            seed=seed, batch_tokens=self.batch_tokens, member_schedule=schedule, **CHECKS, **changes
        )
        nets = planned(self.teacher, options, self.layers, self.ffn, None, None, None, count)
        return [
            (space, replace(one, members_per_pass=min(MEMBERS_PER_PASS, len(space.members)))) for space, one in nets
        ]

    def alone(self, seed: int, steps: int, **changes: Any) -> DistillOptions:
        """Options of a student alone, or side by side with others."""
        options = DistillOptions(seed=seed, steps=steps, batch_tokens=self.batch_tokens, **CHECKS, **changes)
        return settled(options, self.corpus, self.teacher)


def steps_within(seconds: float, update_seconds: float) -> int:
    """Number of updates that fit into some seconds, at least 1."""
    return max(1, int(seconds / update_seconds))


def update_times(folder: Path) -> list[float]:
    """Seconds of each update of a training whose `history.jsonl` has a row for each (`log_every` 1)."""
    ends = [row["seconds"] for row in read_jsonl(folder / "history.jsonl") if row["kind"] == "train"]
    return [end - start for start, end in zip([0.0, *ends], ends, strict=False)]


def trained_seconds(results: dict[str, Any]) -> float:
    """Seconds of all updates of a training, from its results."""
    return float(results["tokens"] / results["tokens_per_second"])


def student(artifact: Artifact) -> Path:
    """The model of a distillation."""
    return artifact.path / "student"
