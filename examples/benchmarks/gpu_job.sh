#!/usr/bin/env bash
# Train or continue adapters of the default model on one accelerator, the parts side by side. Alone, soft gets all of it: PROCESSES
# share every step, each with BATCH examples, because one core cannot launch kernels as fast as the device runs them.
# CHECKPOINTING=--checkpointing lets a larger BATCH fit, and takes a third longer for each example. NF4=1 loads the base in 4 bits
# alone (QLoRA): with both an 8B fits into 12 GiB.
# usage: gpu_job.sh MODEL_FOLDER DATA_FOLDER OUT_FOLDER MINUTES [DEVICE] [STEPS] [PARTS]
# The rate falls to its floor as the minutes pass; STEPS only paces what changes on the way, so give about as many as fit. Called
# again it goes on from its state. It leaves two bundles, OUT/kv and OUT/soft, each file under 16 MiB, and a log next to each run.
# With CHECK=yes gpu_check.py compares the device with its CPU first. EXPECT=x, in nats, ends the run where the held-out loss to begin
# with is not what a CPU finds (`train_adapter.py PART DATA OUT --start default --held-out 12 --expect 0` says it): twice a run was of no use without. One
# part at a time then: each has its own.
# Rehearsal on a CPU: gpu_job.sh ~/.cache/cmt/models/smollm2-135m-instruct DATA OUT 1 cpu 2
set -uo pipefail
model=$1 data=$2 out=$3 minutes=$4 device=${5:-cuda} steps=${6:-1000} parts=${7:-soft}
here=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # threads that wait for work take the cores from those that launch kernels
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
kv=6 soft=4 held=12 # examples a step
if [ "$parts" = soft ] && [ "$device" != cpu ]; then
  processes=${PROCESSES:-4}
  soft=${BATCH:-$("${PYTHON:-python3}" -c "import torch; print(max(1, torch.cuda.mem_get_info()[0] // $processes // 5_000_000_000))")}
  echo "$processes processes of $soft examples a step; PROCESSES=$processes BATCH=$soft goes on with this run elsewhere"
fi
if [ "$device" = cpu ]; then kv=1 soft=1 held=1 processes=${PROCESSES:-1}; fi
checkpointing=${CHECKPOINTING:-}
mkdir -p "$out"
if [ "${CHECK:-no}" = yes ] && [ "$device" != cpu ]; then
  "${PYTHON:-python3}" "$here/examples/benchmarks/gpu_check.py" "$out/gpu_check.md" --model "$model" --device "$device" || echo "see why before you use what is trained here" >&2
fi
train() {
  local launch=("${PYTHON:-python3}")
  if [ "$1" = soft ] && [ "${processes:-1}" -gt 1 ]; then launch+=(-m torch.distributed.run --standalone --nproc_per_node "$processes" --); fi # without "--" torchrun takes --start for one of its own
  "${launch[@]}" "$here/examples/benchmarks/train_adapter.py" "$1" "$data" "$out/$1-run" --model "$model" --device "$device" \
    --start "${START:-default}" --steps "$steps" --fit --accumulate 1 --held-out "$held" --seed "${SEED:-0}" \
    ${EXPECT:+--expect "$EXPECT"} "${@:2}" \
    >> "$out/$1.out" 2>&1 || echo "$1 failed, see $out/$1.out" >&2
}
for part in $parts; do
  case $part in
    compressor) train compressor --minutes "$minutes" --batch "$kv" --rate 1e-3 --nf4 "${NF4:-0.2}" $checkpointing & ;;
    soft) train soft --minutes "$minutes" --batch "$soft" --rate "${RATE:-2e-3}" --nf4 "${NF4:-0}" $checkpointing & ;;
    embedding) train embedding --minutes "$("${PYTHON:-python3}" -c "print($minutes * 0.6)")" --rate 1e-3 --rank 16 & ;; # it takes most of the device
    *) echo "PART=$part: choose compressor, soft or embedding" >&2; exit 2 ;;
  esac
done
wait
for pair in compressor:kv soft:soft; do
  if [ ! -f "$out/${pair%:*}-run/cmt-adapter.json" ]; then continue; fi
  bundle=$out/${pair#*:}
  mkdir -p "$bundle"
  cp -r "$out/${pair%:*}-run"/{reader,encoder,cmt-adapter.json,README.md} "$bundle/"
  find "$out/${pair%:*}-run" -maxdepth 1 -name "*.safetensors" -exec cp {} "$bundle/" \;
  if [ -d "$out/embedding-run/matcher" ]; then cp -r "$out/embedding-run"/{matcher,match.safetensors} "$bundle/"; fi
done
