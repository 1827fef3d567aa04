"""The artifact of a distilled student: checks of its options, and its key."""

from pathlib import Path
from typing import TYPE_CHECKING

from kdnas.distill.building import build_stage, deciding, needed_bytes, require_possible, settled
from kdnas.distill.mapping import require_no_deeper
from kdnas.distill.options import DistillOptions, StudentOptions
from kdnas.distill.pairs import partners_of
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.head import read_head, read_prompts
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

if TYPE_CHECKING:
    from kdnas.distill.processes import Work

Student = tuple[Path, str]  # its Hugging Face folder, and a digest of its content


def checked(options: DistillOptions, arch: Arch, teacher: Teacher, corpus: Corpus) -> DistillOptions:
    """The options with those decided that depend on the corpus and the teacher.

    Raises:
        UsageError: as in `run_distill`.
    """
    require_no_deeper(arch.layers, teacher.layers)
    require_possible(options)
    pooling_of(teacher.path)  # the student gets the same pooling, so reject unsupported pooling now
    if options.teaches_embeddings:
        _require_embeddings(options, teacher)
    if options.contrastive_weight:
        partners_of(corpus)  # reject a corpus without pairs now
    if options.relation_weight:
        require_relations(options, arch, teacher)
    return settled(options, corpus, teacher)


def build_student(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    arch: Arch,
    options: DistillOptions,
    work: "Work",
    student: Student | None = None,
) -> Artifact:
    """The artifact of a distillation; if it does not exist, `work` trains the student. Other arguments as for `run_distill`."""
    config = {"arch": str(arch), **deciding(options)}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest} | ({"student": student[1]} if student else {})
    label, needed = f"{teacher.label}-{arch.name}", needed_bytes(arch, teacher.student_sizes.rows)
    return build_stage(home, "distill", label, config, inputs, work, needed)


def require_relations(options: StudentOptions, arch: Arch, teacher: Teacher) -> None:
    """Raise UsageError if the relation heads do not divide the widths, or the teacher has no such layer."""
    from kdnas.distill.relation import resolve_relation_heads, resolve_teacher_layer

    resolve_relation_heads(options.relation_heads, arch.hidden, teacher.hidden)
    resolve_teacher_layer(options.teacher_layer, teacher.layers)


def _require_embeddings(options: DistillOptions, teacher: Teacher) -> None:
    """Raise UsageError if the teacher's files describe no supported embedding, or it is not longer than the other widths."""
    head, _ = read_head(teacher.path), read_prompts(teacher.path)
    width = teacher.hidden if head is None else head.outputs
    if options.matryoshka and max(options.matryoshka) >= width:
        raise UsageError(
            f"matryoshka is {list(options.matryoshka)}; the teacher's vectors have {width} dimensions, give smaller widths"
        )
