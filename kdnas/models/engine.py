"""Engines: a runtime, a precision and a device that run a model.

`ENGINES` is the only registry. All code that depends on an engine reads its entry: the choices of the commands, the forms of an
export, sessions, the latency table, the peaks of the host, the scores of suites. No code parses engine names.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from kdnas.errors import UsageError
from kdnas.store.host import cpu_info, has_bf16


class Precision(StrEnum):
    """Number format of weights and products."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"

    @property
    def bytes(self) -> int:
        """Bytes per number."""
        return {Precision.F32: 4, Precision.BF16: 2, Precision.INT8: 1}[self]


@dataclass(frozen=True)
class Engine:
    """A runtime in one precision on one device; `str(engine)` is its name, such as `openvino-int8`.

    Args:
        runtime: name of the runtime. `kdnas.latency.engines` has a file with this name, which makes the models to time.
            `kdnas.export.engines.RUNTIMES` has an entry with this name if exports contain graphs for the runtime.
        precision: precision of the products.
        device: `cpu`, or `cuda` for the GPU that PyTorch uses.
        packages: distributions whose versions affect the speed.
        graph: file in an export folder that the engine runs; None if it runs no export.
        at_run_time: whether the graph is the runtime's float32 graph, which the engine computes in this precision.
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
        """Name of the exported form whose graph the engine runs; None if it runs no export."""
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
        """Bytes per weight in the engine's products."""
        return self.precision.bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes per weight on disk: models are stored in float32 unless they are quantised."""
        return (self.precision if self.quantised else Precision.F32).bytes

    @property
    def is_native(self) -> bool:
        """Whether this CPU computes in the precision without emulating it."""
        return self.precision is not Precision.BF16 or has_bf16()


def engine_name(runtime: str, precision: Precision) -> str:
    """The name of an engine, such as `openvino-int8`."""
    return f"{runtime}-{precision}"


TORCH, OPENVINO, ONNXRUNTIME = ("torch", "transformers"), ("openvino", "optimum"), ("onnxruntime", "optimum")
# The order is that of all lists of choices and forms.
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
PYTORCH = engine_name("pytorch", Precision.F32)  # the reference for all others

# Type of an option that names an engine; its choices are the registry's names. Type checkers need literals, so they see str.
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]


def engine_of(name: str) -> Engine:
    """The engine with this name.

    Raises:
        UsageError: there is no such engine; the message lists all names.
    """
    if name not in ENGINES:
        raise UsageError(f"engine '{name}': allowed are {', '.join(ENGINES)}")
    return ENGINES[name]


def session_engines() -> list[str]:
    """Names of the engines that run exports."""
    return [name for name, engine in ENGINES.items() if engine.form is not None]


def require_native(engine: Engine) -> None:
    """Check that this CPU does not emulate the engine's precision.

    Raises:
        UsageError: the CPU would emulate it.
    """
    if not engine.is_native:
        raise UsageError(
            f"engine '{engine}': this CPU ({cpu_info()[0]}) has neither AVX512-BF16 nor AMX, bf16 would be emulated; "
            f"use {engine.float_name}"
        )
