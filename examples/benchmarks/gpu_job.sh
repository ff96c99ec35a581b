#!/usr/bin/env bash
# Train or continue the adapters of the default model on an accelerator, within a bounded time, and write what is worth keeping.
# usage: gpu_job.sh MODEL_FOLDER DATA_FOLDER OUT_FOLDER [READER_MINUTES] [MATCHER_MINUTES] [DEVICE] [STEPS]
# Rehearsal on a CPU: gpu_job.sh ~/.cache/cmt/models/smollm2-135m-instruct ../shared/data /tmp/out 1 1 cpu 4
set -euo pipefail
model=$1 data=$2 out=$3 reader_minutes=${4:-9} matcher_minutes=${5:-5} device=${6:-cuda} steps=${7:-4000}
here=$(cd "$(dirname "$0")/../.." && pwd)
shipped=$here/cmt_sdk/weights/shipped/smollm2-135m-instruct
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"
start() { if [ -d "$shipped/$1" ] && [ ! -d "$2/state" ]; then echo "--start $shipped/$1"; fi; }

# A GPU takes more packs a step; both runs continue from their state when they are called again.
many=12 passages=12000 held=12
if [ "$device" = cpu ]; then many=1 passages=40 held=1; fi
"${PYTHON:-python3}" "$here/examples/benchmarks/train_adapter.py" reader "$data" "$out/reader-run" --model "$model" --device "$device" \
  --steps "$steps" --minutes "$reader_minutes" --accumulate "$many" --held-out "$held" $(start reader "$out/reader-run") | tail -n 40
"${PYTHON:-python3}" "$here/examples/benchmarks/train_adapter.py" matcher "$data" "$out/matcher-run" --model "$model" --device "$device" \
  --steps "$steps" --minutes "$matcher_minutes" --accumulate 1 --rate 2e-3 --passages "$passages" --held-out "$held" | tail -n 40
cp "$out/reader-run/adapter/adapter_model.safetensors" "$out/reader.safetensors"
cp "$out/matcher-run/adapter/match.safetensors" "$out/match.safetensors"
cat "$out/reader-run/log.jsonl" "$out/matcher-run/log.jsonl" > "$out/log.jsonl"
