"""Request and response bodies of the HTTP service."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PredictRequest(BaseModel):
    """One text or several."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["You are very kind.", "Go away."]}]}
    )

    text: str | None = Field(None, description="one text; give this or `texts`")
    texts: list[str] | None = Field(None, description="several texts; give this or `text`")
    truncate: bool = Field(False, description="cut texts that are too long for the model instead of refusing them")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either 'text' or 'texts'")
        if self.texts == []:
            raise ValueError("'texts' is empty; give at least one text")
        for index, text in enumerate(self.all_texts()):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(f"text {index} contains an unpaired surrogate") from error
        return self

    def all_texts(self) -> list[str]:
        """The texts, one or several."""
        return self.texts if self.texts is not None else [self.text or ""]


class Prediction(BaseModel):
    """The most probable label of one text, its probability, and the probabilities of all labels."""

    label: str
    score: float
    scores: dict[str, float]


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


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Health(BaseModel):
    """Whether the process is alive or ready for requests."""

    status: str
