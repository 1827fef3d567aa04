"""Train a custom teacher, a Unigram tokenizer and a masked language model, if no pretrained encoder is available."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.pretrain(...)` works although this package has that name
