"""Request bodies of our own contract, and the bodies of its answers, for the OpenAPI document."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kdnas.serving.wire import WHOLE

TooLongPolicy = Literal["error", "truncate", "windows"]
EXAMPLE = '{"texts": ["..."]}'


def _either(given: dict[str, str], missing: Sequence[str]) -> dict[str, JsonValue]:
    """JSON Schema of an object that has fields of these types and lacks others, or has null for them."""
    kinds: dict[str, JsonValue] = {name: {"type": kind} for name, kind in given.items()}
    return {"required": list(given), "properties": kinds | {name: {"type": "null"} for name in missing}}


# What the validators below check, for the OpenAPI document.
ONE_OF_BOTH: list[JsonValue] = [_either({"text": "string"}, ["texts"]), _either({"texts": "array"}, ["text"])]
ONE_QUESTION_OR_SEVERAL: list[JsonValue] = [
    _either({"question": "string", "context": "string"}, ["questions"]),
    _either({"questions": "array"}, ["question", "context"]),
]


class Texts(BaseModel):
    """One text or several."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = Field(None, description="one text; give this or `texts`")
    texts: list[str] | None = Field(None, description="several texts; give this or `text`", min_length=1)
    model: str | None = Field(None, description="name of the model; by default the first one that fits")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either 'text' or 'texts'")
        return self

    def all_texts(self) -> list[str]:
        """The texts, one or several."""
        return self.texts if self.texts is not None else [self.text or ""]


class PredictRequest(Texts):
    """Texts to classify or to embed."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": ONE_OF_BOTH, "examples": [{"texts": ["You are very kind.", "Go away."]}]}
    )

    truncate: bool = Field(False, description='cut texts that are too long; the same as `too_long`: "truncate"')
    too_long: TooLongPolicy | None = Field(
        None, description="what to do with texts that are too long for the model; by default the server's policy"
    )
    label: str | None = Field(
        None, description="a text in windows gets the scores of the window in which this label is most probable"
    )
    language: str | None = Field(
        None, description="code of the language of the texts, for a model that has thresholds by language"
    )


class EntitiesRequest(Texts):
    """Texts of any length in which to find entities."""

    model_config = ConfigDict(json_schema_extra={"oneOf": ONE_OF_BOTH, "examples": [{"text": "Ada lives in London."}]})


class Question(BaseModel):
    """A question, and the text that answers it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str
    context: str


class AnswerRequest(BaseModel):
    """One question with its context, or several."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "oneOf": ONE_QUESTION_OR_SEVERAL,
            "examples": [{"question": "Where does Ada live?", "context": "Ada lives in London."}],
        },
    )

    question: str | None = None
    context: str | None = None
    questions: list[Question] | None = Field(None, description="several questions with their contexts", min_length=1)
    max_answer_tokens: Annotated[int, Field(ge=1, le=512), WHOLE] = 30
    model: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        single = self.question is not None and self.context is not None
        partial = self.question is not None or self.context is not None
        if (self.questions is not None) == partial or (partial and not single):
            raise ValueError("give 'question' and 'context', or 'questions'")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """The questions with their contexts."""
        if self.questions is not None:
            return [(one.question, one.context) for one in self.questions]
        return [(self.question or "", self.context or "")]


class WindowScore(BaseModel):
    """The label of one part of a long text, by code points."""

    start: int
    end: int
    label: str
    score: float


class Prediction(BaseModel):
    """The best label of one text, its score, and the scores of all labels."""

    label: str
    score: float
    scores: dict[str, float]
    labels: list[str] | None = Field(None, description="of a multi-label model: the labels that reach their thresholds")
    truncated: bool | None = Field(None, description="true if the text was cut")
    windows: list[WindowScore] | None = Field(None, description="parts of a long text, the highest score first")


class Classified(BaseModel):
    """Answer of a classifier: one prediction per text, in the order of the texts."""

    model: str
    form: str
    predictions: list[Prediction]


class Embedded(BaseModel):
    """Answer of an encoder: one L2-normalised embedding per text, in the order of the texts."""

    model: str
    form: str
    embeddings: list[list[float]]


class FoundEntity(BaseModel):
    """An entity: `text` is the text's code points from `start` to `end`."""

    start: int
    end: int
    text: str
    label: str
    score: float


class FoundEntities(BaseModel):
    """The entities of each text, in the order of the texts."""

    model: str
    form: str
    entities: list[list[FoundEntity]]


class FoundAnswer(BaseModel):
    """An answer: the context's code points from `start` to `end`; score: sum of two logits, null without an answer."""

    text: str
    start: int
    end: int
    score: float | None


class Answered(BaseModel):
    """The answer to each question, in their order."""

    model: str
    form: str
    answers: list[FoundAnswer]


class Health(BaseModel):
    """Whether the process is alive or ready for requests."""

    status: str


class Reloaded(BaseModel):
    """Names of the models after a reload."""

    models: list[str]
