#!/usr/bin/env bash
# Makes .venv-tflite: posesdk as on a device whose image carries tflite-runtime 2.14 (numpy 1, Python 3.11 or older, no
# ONNX Runtime). tests/test_tflite_runtime.py runs there, and is skipped without it. Does nothing when all is there.
#
#   PYTHON   interpreter to build it from (default: the one that .venv was made from)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv-tflite
constraints=scripts/tflite_runtime_constraints.txt
stamp=$venv/.setup-stamp

say() { printf 'tflite-runtime: %s\n' "$*" >&2; }

base_python() {
    "${PYTHON:-.venv/bin/python}" -c 'import os, sys; print(os.path.realpath(sys.executable))'
}

wanted=$(cat pyproject.toml "$constraints" scripts/tflite_runtime_env.sh <(pwd -P) | sha256sum | cut -d' ' -f1)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
python=$(base_python)
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))'; then
    say "tflite-runtime has no build for $("$python" --version); set PYTHON to a Python 3.10 or 3.11"
    exit 1
fi
say "making $venv with $("$python" --version)"
rm -rf "$venv"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 -c "$constraints")
"${pip[@]}" tflite-runtime numpy opencv-python-headless pydantic typer rich hatchling editables
"${pip[@]}" --no-deps --no-build-isolation -e .
printf '%s\n' "$wanted" >"$stamp"
say "done in ${SECONDS} s"
