#!/usr/bin/env bash
# Train or continue the adapters of the default model on an accelerator, within a bounded time, and write what is worth keeping.
# usage: gpu_job.sh MODEL_FOLDER DATA_FOLDER OUT_FOLDER [COMPRESSOR_MINUTES] [MATCHER_MINUTES] [DEVICE] [STEPS]
# Rehearsal on a CPU: gpu_job.sh ~/.cache/cmt/models/smollm2-135m-instruct ../shared/data /tmp/out 1 1 cpu 2
set -euo pipefail
model=$1 data=$2 out=$3 compressor_minutes=${4:-9} matcher_minutes=${5:-5} device=${6:-cuda} steps=${7:-4000}
here=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
train() { "${PYTHON:-python3}" "$here/examples/benchmarks/train_adapter.py" "$@" --model "$model" --device "$device" --steps "$steps" | tail -n 40; }

# A GPU takes more packs a step; both runs continue from their state when they are called again.
many=12 passages=12000 held=12
if [ "$device" = cpu ]; then many=1 passages=40 held=1; fi
train compressor "$data" "$out/compressor-run" --minutes "$compressor_minutes" --accumulate "$many" --held-out "$held" --start default
train matcher "$data" "$out/matcher-run" --minutes "$matcher_minutes" --accumulate 1 --rate 2e-3 --passages "$passages" --held-out "$held"
for part in reader encoder; do # the trained rank is twice what is shipped: half of it holds all that was learned
  "${PYTHON:-python3}" "$here/examples/benchmarks/train_adapter.py" cut "$out/compressor-run/adapter/$part" "$out/$part" --model "$model" --rank 16
done
cp "$out/matcher-run/adapter/match.safetensors" "$out/match.safetensors"
cat "$out/compressor-run/log.jsonl" "$out/matcher-run/log.jsonl" > "$out/log.jsonl"
