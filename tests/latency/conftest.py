"""Shared fixtures of the latency tests."""

from pathlib import Path

import pytest

from kdnas.models.teacher import Teacher, load_config

from .graph_fixture import POSITIONS, VOCABULARY


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a teacher of the requested family, with sizes that differ from the default."""
    from transformers import RobertaConfig

    folder = tmp_path_factory.mktemp(request.param)
    config = load_config(tiny_teacher.path)
    if request.param == "roberta":
        config = RobertaConfig(type_vocab_size=1, pad_token_id=1)
    config.vocab_size, config.max_position_embeddings = VOCABULARY, POSITIONS
    config.save_pretrained(folder)
    return folder
