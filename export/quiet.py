"""The exporters' noise, kept off the terminal."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings, logs and bars off the terminal; what they find wrong, parity finds."""
    import nncf  # noqa: F401  importing sets these loggers' levels: afterwards would be too late
    import optimum.intel  # noqa: F401
    import transformers

    transformers.logging.set_verbosity_error()
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "nncf", "openvino", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
