"""The last layer of a text classifier computes only the first token, with the same logits."""

import openvino
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from kdnas.export.first_token import last_layer_of_first_token
from kdnas.export.folder import FORMS
from kdnas.store.artifact import Artifact

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 90}


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_the_logits_do_not_change(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **SIZES)).eval()
    ids = torch.randint(5, 90, (3, 9))
    mask = torch.ones_like(ids)
    ids[1, 4:], mask[1, 4:] = 1, 0
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits
        with last_layer_of_first_token(model, "text-classification"):
            torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected)
            assert model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.shape == (3, 1, 16)
        assert model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.shape == (3, 9, 16)


def test_other_tasks_keep_all_tokens() -> None:
    model = AutoModelForTokenClassification.from_config(AutoConfig.for_model("bert", **SIZES)).eval()
    with torch.inference_mode(), last_layer_of_first_token(model, "token-classification"):
        assert model(input_ids=torch.randint(5, 90, (1, 7))).logits.shape[1] == 7


@pytest.mark.parametrize("form", ["openvino-f32", "openvino-int8"])
def test_an_exported_classifier_computes_only_the_first_token(form: str, classifier_export: Artifact) -> None:
    model = openvino.Core().read_model(str(classifier_export.path / FORMS[form]))
    tokens = {
        node.get_friendly_name().split("attention.self.")[1].split("/")[0]: node.get_output_partial_shape(0)[1]
        for node in model.get_ops()
        if node.get_type_name() == "MatMul" and "layer.1.attention.self." in node.get_friendly_name()
    }
    assert tokens["query"].get_max_length() == 1
    assert tokens["key"].get_max_length() != 1
    assert tokens["value"].get_max_length() != 1
