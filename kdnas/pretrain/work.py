"""The work of `kdnas pretrain`, inside an artifact's working folder."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedTokenizerFast, XLMRobertaConfig

from kdnas.distill.fit import finish, finished, prepare, train_alone
from kdnas.distill.loop import make_accelerator, use_all_cores
from kdnas.models.arch import Arch
from kdnas.models.card import with_metadata
from kdnas.models.folder import save_model
from kdnas.models.student import student_config
from kdnas.models.teacher import Teacher, load_config, load_tokenizer
from kdnas.pretrain.masked_lm import MaskedLanguageModel
from kdnas.pretrain.options import POSITIONS, PretrainOptions
from kdnas.pretrain.stacking import stack
from kdnas.text.corpus import Corpus

METADATA = {"library_name": "transformers", "pipeline_tag": "fill-mask", "tags": ["kdnas"]}
CARD = """# {name}

A text encoder of {parameters_millions:.1f} million parameters: `{arch}` (layers, heads, hidden size, feed-forward size,
activation), trained with kdnas to predict masked tokens.

- Corpus: `{corpus}`
- {steps} steps, {tokens} tokens in {precision}
- Validation loss {validation_loss:.4f}, a perplexity of {perplexity:.1f} at the masked tokens, with a vocabulary of {vocabulary}

```python
from transformers import pipeline

fill = pipeline("fill-mask", "path/of/this/folder")
```
"""


def pretrain_into(
    folder: Path, tokenizer: Teacher, corpus: Corpus, arch: Arch, options: PretrainOptions, start: Path | None
) -> dict[str, Any]:
    """Train a masked language model from random weights or from a shallower model, and write it to `teacher/` in `folder`."""
    done = finished(folder)
    if done is not None:
        return done
    use_all_cores()
    torch.manual_seed(options.seed)
    accelerator = make_accelerator(options.precision)
    tokens = load_tokenizer(tokenizer.path)
    model = AutoModelForMaskedLM.from_config(teacher_config(arch, tokenizer, tokens)).eval()
    if start:
        stack(model, start)
    special = sorted(set(tokens.all_special_ids) - {tokens.unk_token_id})
    objective = MaskedLanguageModel(model, tokens.mask_token_id, special, options.mask_fraction).to(accelerator.device)
    fitting = prepare(folder, objective, corpus, options, accelerator, "pretrain", tokenizer.path)
    results = train_alone(fitting)
    results |= {"perplexity": math.exp(results["validation_loss"]), "vocabulary": model.config.vocab_size}
    card = with_metadata(METADATA, CARD.format(name=arch.name, corpus=corpus.name, **results))
    return finish(folder, results, lambda: save_model(folder / "teacher", model.cpu(), tokenizer.path, card))


def teacher_config(arch: Arch, tokenizer: Teacher, tokens: PreTrainedTokenizerFast) -> PretrainedConfig:
    """Configuration of the new model: XLM-R for a newly trained tokenizer, else the family of the tokenizer's model."""
    if tokenizer.config.get("model_type"):
        return student_config(arch, load_config(tokenizer.path))
    return student_config(
        arch,
        XLMRobertaConfig(
            vocab_size=len(tokens),
            max_position_embeddings=POSITIONS,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=tokens.pad_token_id,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
        ),
    )
