"""FastAPI that runs one text after the other, as guardrails-detectors does: `... GRAPH TOKENIZER LENGTH THREADS PORT`."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from graph import Graph
from pydantic import BaseModel

app = FastAPI()
graph = Graph(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))


class Body(BaseModel):
    """Body of a request."""

    text: str


@app.post("/predict")
async def predict(body: Body) -> dict[str, list[float]]:
    """Scores of the text, computed in the event loop."""
    return {"scores": graph.scores([body.text])[0]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[5]), log_level="error")
