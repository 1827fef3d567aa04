#!/usr/bin/env bash
# Build the wheel, unpack it into an empty environment that sees the pinned packages but not the checkout, and run it
# from another folder. usage: wheel_test.sh PYTHON
set -euo pipefail
python=$(realpath --no-symlinks "$1")
source_dir=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git -C "$source_dir" ls-files -z | (cd "$source_dir" && xargs -0 cp --parents --no-dereference -t "$folder" 2>/dev/null) || true
cd "$folder"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
"$python" -m venv empty
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
# A .pth line adds the pinned packages, but .pth files inside that folder (the editable install) are not read.
echo "$packages" > "$(empty/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/pins.pth"
empty/bin/pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall dist/*.whl
mkdir elsewhere
cd elsewhere
../empty/bin/python - <<'PYTHON'
import importlib, pathlib, sys

for name in ("kdnas", "kdnas.distill.run", "kdnas.search.run", "kdnas.latency.run", "kdnas.latency.worker", "kdnas.latency.peers.run", "kdnas.export.session",
             "kdnas.evaluation.run", "kdnas.serving.run", "kdnas.pipeline.report", "kdnas.pretrain.run", "kdnas.search.strategies", "kdnas.teachers.run",
             "kdnas.gates.run"):
    file = pathlib.Path(importlib.import_module(name).__file__).resolve()
    assert "empty" in file.parts, f"{name} was imported from {file}, not from the wheel"
assert importlib.util.find_spec("tests") is None or "empty" not in str(importlib.util.find_spec("tests").origin)
print("the wheel imports from an empty environment")
PYTHON
../empty/bin/kdnas --help > /dev/null
