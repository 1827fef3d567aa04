"""Export to ONNX Runtime and OpenVINO, and the one session that runs what was exported."""

import sys

from kdnas.interface import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `kdnas.export(...)` works though this package has the name
