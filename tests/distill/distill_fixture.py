"""Options of a short run, which the tests of the training stages share."""

from kdnas.models.arch import Arch

ARCH = Arch(2, 4, 24, 64)
STEPS = 15
COMMON = {
    "steps": STEPS,
    "batch_tokens": 512,
    "accumulate": 2,
    "validations": 3,
    "validation_sentences": 60,
    "log_every": 4,
    "checkpoint_seconds": 0.0,
    "dropout": True,  # makes results depend on the random state
}
