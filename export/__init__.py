"""Export to ONNX Runtime and OpenVINO, and the one session that runs what was exported."""
