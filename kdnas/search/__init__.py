"""KD-NAS search: a controller proposes architectures, proxy distillation scores them."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.search(...)` works though this package has the name
