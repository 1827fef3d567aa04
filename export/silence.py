"""Suppresses the terminal output of exporters and of transformers."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Suppress the exporters' warnings, logs and progress bars; the parity check finds real faults."""
    # Turns off the telemetry of NNCF and OpenVINO, whose forked processes can hang at exit without a network.
    os.environ.setdefault("CI", "true")
    import nncf  # noqa: F401  import first, because importing sets these loggers' levels
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


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress transformers' warnings."""
    from transformers.utils import logging as verbosity

    before = verbosity.get_verbosity()
    verbosity.set_verbosity_error()
    try:
        yield
    finally:
        verbosity.set_verbosity(before)
