"""`kdnas static-student`."""

from pathlib import Path
from typing import Any

from kdnas.distill.static_options import StaticOptions
from kdnas.models.head import read_head, read_prompts
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.artifact import Artifact, build
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

KIND = "static"


def static_student(
    options: StaticOptions = StaticOptions(),
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Make a student without layers: the mean of token vectors that are fitted to the teacher's vectors in closed form.

    Args:
        options: options of the student.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a local file or folder, several of both separated by commas, or a hub id.
        text: how to read the corpus.
        home: root of all artifacts.
        output: folder for a copy of the model, which sentence-transformers loads; null keeps it only below `home`.

    Raises:
        UsageError: the teacher's files describe no supported embedding.
    """
    require_output(output, KIND)
    found = resolve_teacher(teacher, home)
    _ = pooling_of(found.path), read_head(found.path), read_prompts(found.path)  # reject before the corpus is built
    return deliver(run_static(home, found, build_corpus(home, corpus, text, found), options), output)


def run_static(home: Path, teacher: Teacher, corpus: Corpus, options: StaticOptions) -> Artifact:
    """Artifact with the static student in `student/`; its results have the cosine with the teacher and the time of a text.

    Args:
        home: root of all artifacts.
        teacher: the teacher.
        corpus: sentences, tokenised for this teacher.
        options: options of the student.
    """

    def work(folder: Path) -> dict[str, Any]:
        from kdnas.distill.static import static_into

        return static_into(folder, teacher, corpus, options)

    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    needed = 8 * teacher.config["vocab_size"] * teacher.hidden
    return build(home, KIND, teacher.label, {"options": options}, inputs, work, needed)
