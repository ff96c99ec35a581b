#!/usr/bin/env bash
# Train or continue adapters of the default model on an accelerator, one part a call, each within a bounded time.
# usage: gpu_job.sh PART MODEL_FOLDER DATA_FOLDER OUT_FOLDER [MINUTES] [DEVICE] [STEPS], PART: compressor, soft, matcher or finish
# A part that is called again goes on from its state. `finish` cuts the adapters to the rank that is shipped and writes two bundles,
# OUT/kv and OUT/soft, each file under 16 MiB, with the logs beside them.
# Rehearsal on a CPU: for p in compressor soft matcher finish; do gpu_job.sh $p ~/.cache/cmt/models/smollm2-135m-instruct DATA OUT 1 cpu 2; done
set -euo pipefail
part=$1 model=$2 data=$3 out=$4 minutes=${5:-9} device=${6:-cuda} steps=${7:-4000}
here=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
adapter() { "${PYTHON:-python3}" "$here/examples/benchmarks/train_adapter.py" "$@" --model "$model"; }

many=12 passages=12000 held=12 # a GPU takes more packs a step
if [ "$device" = cpu ]; then many=1 passages=40 held=1; fi
case $part in
  compressor | soft)
    adapter "$part" "$data" "$out/$part-run" --device "$device" --steps "$steps" --minutes "$minutes" --accumulate "$many" \
      --held-out "$held" --start default | tail -n 40 ;;
  matcher)
    adapter matcher "$data" "$out/matcher-run" --device "$device" --steps "$steps" --minutes "$minutes" --accumulate 1 --rate 2e-3 \
      --passages "$passages" --held-out "$held" | tail -n 40 ;;
  finish)
    for run in compressor soft; do
      if [ ! -d "$out/$run-run/adapter" ]; then continue; fi
      bundle=$out/kv
      if [ "$run" = soft ]; then bundle=$out/soft; fi
      mkdir -p "$bundle"
      cp "$out/$run-run"/*.safetensors "$out/$run-run/cmt-adapter.json" "$bundle/"
      for name in reader encoder; do # half of the trained rank holds all that was learned
        adapter cut "$out/$run-run/adapter/$name" "$bundle/$name" --rank 16
      done
      if [ -d "$out/matcher-run/adapter" ]; then cp "$out/matcher-run/adapter/match.safetensors" "$bundle/"; fi
      cp "$out/$run-run/log.jsonl" "$bundle/"
    done
    if [ -d "$out/matcher-run" ]; then cp "$out/matcher-run/log.jsonl" "$out/matcher.log.jsonl"; fi ;;
  *) echo "PART=$part: choose compressor, soft, matcher or finish" >&2; exit 2 ;;
esac
