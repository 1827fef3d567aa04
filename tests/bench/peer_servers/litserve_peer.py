"""LitServe with ONNX Runtime, batched as its documentation shows: `... GRAPH TOKENIZER LENGTH THREADS PORT`."""

import sys
from pathlib import Path
from typing import Any

import litserve
from graph import Graph


class Classifier(litserve.LitAPI):
    """One text a request; LitServe makes the batches."""

    def setup(self, device: str) -> None:
        """Open the graph in the worker."""
        self.graph = Graph(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

    def decode_request(self, request: dict[str, Any]) -> str:
        """The text of a body."""
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[list[float]]:
        """Scores of a batch."""
        return self.graph.scores(texts)

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """The body of the answer."""
        return {"scores": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(max_batch_size=32, batch_timeout=0.002), accelerator="cpu", track_requests=False
    )
    server.run(port=int(sys.argv[5]), host="127.0.0.1", generate_client_file=False, log_level="error")
