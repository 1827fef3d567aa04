"""OpenVINO, with the settings that every session has and a graph for each width of single texts."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.calls import feeds, joined
from export.tables import take_out_tables
from kdnas.padding import LENGTH_STEP

# Tokens up to which single texts get a graph of their padded width.
WIDEST = 128


def openvino_settings(form: str, threads: int) -> dict[str, str]:
    """How OpenVINO runs a form: one call at a time, as fast as it goes, in the form's own precision."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "bf16" if form.endswith("-bf16") else "f32",
    }


class OpenvinoEngine:
    """An `Engine` of OpenVINO, safe for concurrent callers.

    After a call of another shape OpenVINO plans the whole graph anew, which takes as long as a small model's forward pass. So
    single texts get a graph of each width, made when a width comes the second time; batches and longer texts share one graph
    of any shape. Each graph holds its own copy of the layers; the tables of tokens stay outside of them.

    Args:
        graph: path of an `openvino_model.xml`, or an `openvino.Model`.
        form: `openvino-bf16` computes in bf16; the others do not, though hosts that can would by themselves.
        outputs: names of the wanted outputs.
        threads: threads that one call may use.
    """

    def __init__(self, graph: Any, form: str, outputs: Sequence[str], threads: int) -> None:
        import openvino

        self._core, self._settings, self._outputs = openvino.Core(), openvino_settings(form, threads), outputs
        self._model = self._core.read_model(graph) if isinstance(graph, str) else graph
        self._names = [port.get_any_name() for port in self._model.inputs]
        self._tables = take_out_tables(self._model)
        self._any_shape = self._compile(self._model)
        self._of_width: dict[int, _Requests] = {}
        self._met: set[int] = set()
        self._making = threading.Lock()

    def __call__(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, token_type_ids: np.ndarray | None = None
    ) -> np.ndarray:
        given = feeds(self._names, input_ids, attention_mask, token_type_ids)
        given |= {name: table[input_ids] for name, table in self._tables.items()}
        return self._requests(*input_ids.shape).infer(given)

    def _requests(self, batch: int, width: int) -> "_Requests":
        if batch != 1 or width > WIDEST or width % LENGTH_STEP:
            return self._any_shape
        if width not in self._of_width:
            with self._making:
                if width in self._met and width not in self._of_width:
                    model = self._model.clone()
                    fixed = {name: [1, width] for name in self._names}
                    model.reshape(fixed | {name: [1, width, table.shape[1]] for name, table in self._tables.items()})
                    self._of_width[width] = self._compile(model)
                self._met.add(width)
        return self._of_width.get(width, self._any_shape)

    def _compile(self, model: Any) -> "_Requests":
        return _Requests(self._core.compile_model(model, "CPU", self._settings), self._outputs)


class _Requests:
    """A compiled model's requests. One serves one caller at a time: idle ones wait, never more than callers at once."""

    def __init__(self, compiled: Any, outputs: Sequence[str]) -> None:
        self._compiled = compiled
        self._places = [[name in port.get_names() for port in compiled.outputs].index(True) for name in outputs]
        self._idle: list[Any] = []

    def infer(self, given: dict[str, np.ndarray]) -> np.ndarray:
        """The outputs for inputs by the graph's own names."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer(given, share_inputs=True, share_outputs=True)
        # The request's memory is the next caller's.
        result = joined([np.array(request.get_output_tensor(place).data) for place in self._places])
        self._idle.append(request)
        return result
