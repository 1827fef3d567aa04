"""Engines: what computes a model, in which precision, on which device.

`ENGINES` is the one registry. Everything that has to do with engines asks an entry: the choices of the commands, the forms of an
export, a session, the latency table, the peaks of the host, the scores of suites. Nothing takes a name apart.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from kdnas.errors import UsageError
from kdnas.store.host import cpu_info, has_bf16


class Precision(StrEnum):
    """What weights and products are computed in."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"

    @property
    def bytes(self) -> int:
        """Bytes of one number."""
        return {Precision.F32: 4, Precision.BF16: 2, Precision.INT8: 1}[self]


@dataclass(frozen=True)
class Engine:
    """A runtime in one precision on one device; `str(engine)` is its name, as in `openvino-int8`.

    Args:
        runtime: what computes. `kdnas.latency.engines` has a file of this name, which makes the models that are timed, and
            `kdnas.export.engines.RUNTIMES` an entry if exports have graphs of it.
        precision: of the products.
        device: `cpu`, or `cuda` for the GPU that PyTorch sees.
        packages: distributions whose versions decide how fast it is.
        graph: the file that it runs, inside an export folder; none if it runs no export.
        at_run_time: the graph is the float32 one of the same runtime, computed in this precision when it runs.
    """

    runtime: str
    precision: Precision
    device: Literal["cpu", "cuda"] = "cpu"
    packages: tuple[str, ...] = ()
    graph: str | None = None
    at_run_time: bool = False

    def __str__(self) -> str:
        return engine_name(self.runtime, self.precision)

    @property
    def form(self) -> str | None:
        """Name of the exported form whose graph it runs; none if it runs no export."""
        if self.graph is None:
            return None
        return self.float_name if self.at_run_time else str(self)

    @property
    def float_name(self) -> str:
        """Name of the same runtime's engine in float32."""
        return engine_name(self.runtime, Precision.F32)

    @property
    def quantised(self) -> bool:
        """Whether weights and activations are int8."""
        return self.precision is Precision.INT8

    @property
    def bytes_per_weight(self) -> int:
        """Bytes that a weight takes in the engine's products."""
        return self.precision.bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes that a weight takes on disk: models are stored in float32 unless they are quantised."""
        return (self.precision if self.quantised else Precision.F32).bytes

    @property
    def is_native(self) -> bool:
        """Whether this CPU computes in the precision without emulating it."""
        return self.precision is not Precision.BF16 or has_bf16()


def engine_name(runtime: str, precision: Precision) -> str:
    """The text form of an engine, as in `openvino-int8`."""
    return f"{runtime}-{precision}"


TORCH, OPENVINO, ONNXRUNTIME = ("torch", "transformers"), ("openvino", "optimum"), ("onnxruntime", "optimum")
# In the order in which choices and forms are listed.
ENGINES: dict[str, Engine] = {
    str(engine): engine
    for engine in (
        Engine("pytorch", Precision.F32, packages=TORCH),
        Engine("pytorch", Precision.BF16, packages=TORCH),
        Engine("openvino", Precision.INT8, packages=(*OPENVINO, "nncf"), graph="openvino/int8/openvino_model.xml"),
        Engine("openvino", Precision.F32, packages=OPENVINO, graph="openvino/openvino_model.xml"),
        Engine("openvino", Precision.BF16, packages=OPENVINO, graph="openvino/openvino_model.xml", at_run_time=True),
        Engine("onnxruntime", Precision.INT8, packages=ONNXRUNTIME, graph="onnx-int8/model_quantized.onnx"),
        Engine("onnxruntime", Precision.F32, packages=ONNXRUNTIME, graph="onnx/model.onnx"),
        Engine("cuda", Precision.F32, "cuda", packages=TORCH),
        Engine("cuda", Precision.BF16, "cuda", packages=TORCH),
    )
}
PYTORCH = engine_name("pytorch", Precision.F32)  # what all others are compared with

# The type of an option that names an engine: its choices are the registry's. Type checkers want literals, so to them it is str.
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]


def engine_of(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UsageError: there is none; the message lists all.
    """
    if name not in ENGINES:
        raise UsageError(f"engine '{name}': allowed are {', '.join(ENGINES)}")
    return ENGINES[name]


def session_engines() -> list[str]:
    """Names of the engines that run exports."""
    return [name for name, engine in ENGINES.items() if engine.form is not None]


def require_native(engine: Engine) -> None:
    """Refuse a precision that this CPU would emulate.

    Raises:
        UsageError: it would.
    """
    if not engine.is_native:
        raise UsageError(
            f"engine '{engine}': this CPU ({cpu_info()[0]}) has neither AVX512-BF16 nor AMX, bf16 would be emulated; "
            f"take {engine.float_name}"
        )
