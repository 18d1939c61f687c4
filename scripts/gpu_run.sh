#!/bin/sh
# One piece of a long run on a machine with a GPU: goes on with what RUN holds, stops and saves in time.
# Usage: scripts/gpu_run.sh CONFIG RUN MINUTES PACK... [-- --set key=value ...]
# Carry RUN/last.ckpt and RUN/log.csv to the next piece; RUN/last.safetensors are the weights so far.
set -eu
if [ $# -lt 4 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
config=$1 run=$2 minutes=$3
shift 3
packs=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    packs=${packs:+$packs,}$1
    shift
done
[ $# -eq 0 ] || shift
cd "$(dirname "$0")/.."
PYTHONPATH=runtimes:sdk:training:converters:${PYTHONPATH:-} exec "${PYTHON:-python3}" \
    -c "from posesdk_training.cli import main; main()" \
    fit "$config" --run "$run" --max-minutes "$minutes" \
    --set data.resident=true --set "data.pack=[$packs]" --set check_every=25 --set log_every=100 \
    --set channels_last=true --set precision=bf16-mixed "$@"
