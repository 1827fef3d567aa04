"""Progressive stacking: a deep model starts from the repeated layers of a shallow one (Gong et al., ICML 2019).

Twelve layers with random weights learn only token frequencies for a long time. Three layers learn context quickly, and so do
twelve layers that start as four copies of these three (`results/pretraining`).
"""

from dataclasses import replace
from pathlib import Path

from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.utils import logging

from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.family import family_of, shape_of
from kdnas.models.student import arch_of
from kdnas.models.teacher import load_config


def require_stackable(arch: Arch, start: Path) -> None:
    """Raise UsageError if a model of this shape cannot start from the one in the folder."""
    config = load_config(start)
    family, found = family_of(config), arch_of(config)
    if family.students is not family:
        raise UsageError(
            f"start '{start}': its model_type is '{family.model_type}', but the new model has the type "
            f"'{family.students.model_type}'; give a --start of that type"
        )
    if replace(found, layers=arch.layers) != arch or arch.layers < found.layers:
        raise UsageError(
            f"start '{start}': its shape is {found}, and --arch {arch} may differ only by more layers; "
            f"give --arch {replace(found, layers=2 * found.layers)}, or another --start"
        )


def stack(model: PreTrainedModel, start: Path) -> None:
    """Overwrite the weights of a masked language model by those of a shallower one, with its layers 1 to N repeated."""
    logging.set_verbosity_error()  # no warning if `start` has no head; the head is then random
    source = AutoModelForMaskedLM.from_pretrained(
        start, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    layers = family_of(source.config).layer_list(source.base_model)
    depth = len(layers)
    layers.extend(layers[number % depth] for number in range(depth, shape_of(model.config).layers))
    model.load_state_dict(source.state_dict())
