"""Loading a model for export and scoring."""

from pathlib import Path

import pytest
from transformers.utils import logging

from kdnas.export.checkpoint import load_model, open_checkpoint


def test_an_unused_pooler_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The packaged teacher's file has the weights of a pooler."""
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()
    try:
        load_model(open_checkpoint("builtin:minilm-l6", tmp_path))
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.disable_propagation()
        logging.set_verbosity(before)
    assert caplog.messages == []
