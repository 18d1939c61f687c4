#!/usr/bin/env bash
# Sets up everything that the project needs: system packages where this user may install them, and Python packages
# in .venv from constraints.txt. Does nothing when all is there.
#
#   PYTHON            interpreter to build .venv from (default: the first 3.10+ that can make one)
#   TORCH_INDEX_URL   index that holds torch's CPU build (default: pip's own configuration)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.setup-stamp
unfinished=$venv/.setup-unfinished

say() { printf 'setup: %s\n' "$*" >&2; }

can_make_venv() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    # 3.11 first: the pins were run there, and torch's CPU build may exist for it alone.
    local name
    for name in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.10}; do
        if can_make_venv "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    return 1
}

can_load() {
    [[ $(ldconfig -p 2>/dev/null || /sbin/ldconfig -p) == *"$1 "* ]]
}

install_system_packages() {
    local missing=()
    command -v git >/dev/null || missing+=(git)
    find_python >/dev/null || missing+=(python3 python3-venv)
    # Rendering without a screen, for synthetic people; their tests are skipped without it.
    can_load libEGL.so.1 && can_load libGL.so.1 || missing+=(libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "not installed: ${missing[*]}. This needs root and apt; with what GStreamer needs:" \
            "sudo apt-get install --no-install-recommends ${missing[*]} $(scripts/gstreamer.sh --missing)"
        return
    fi
    say "installing ${missing[*]} with apt"
    if ! { apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
        say "apt failed; going on without: ${missing[*]}"
    fi
}

fingerprint() {
    cat pyproject.toml constraints.txt scripts/setup.sh <(pwd -P) | sha256sum | cut -d' ' -f1
}

# A .venv that was cut short, or copied or moved here with its absolute paths, is made again.
usable() {
    [ ! -e "$unfinished" ] && [[ $("$venv/bin/pip" --version 2>/dev/null) == *"from $(pwd -P)/$venv/"* ]]
}

make_venv() {
    local python
    if ! python=$(find_python); then
        say "no Python 3.10 or newer that can make a virtual environment; install python3 and python3-venv, or set PYTHON"
        exit 1
    fi
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

install_python_packages() {
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    local torch
    torch=$(grep -m1 '^torch==' constraints.txt)
    touch "$unfinished"
    say "installing the Python packages (a few minutes the first time)"
    # tensorrt_rtx is built here, and distributions' setuptools of a venv is too old for that, or absent.
    "${pip[@]}" -c constraints.txt hatchling editables setuptools
    # By its exact pin and before what depends on it: a range would fetch the CUDA build and gigabytes beside it.
    "${pip[@]}" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} --no-deps "$torch"
    "${pip[@]}" -c constraints.txt --no-build-isolation -e ".[dev]"
    rm -f "$unfinished"
}

# Tests of an interpreter that wants an environment of its own; they are skipped without it.
make_tflite_environment() {
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || return 0
    scripts/tflite_runtime_env.sh || say "no .venv-tflite; what needs tflite-runtime is not tested here"
}

wanted=$(fingerprint)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    scripts/gstreamer.sh "$venv" # packages come and go without a change here
    exit 0
fi
install_system_packages
usable || make_venv
install_python_packages
make_tflite_environment
scripts/gstreamer.sh "$venv"
printf '%s\n' "$wanted" >"$stamp"
say "done in ${SECONDS} s"
