#!/usr/bin/env bash
# Everything that is to be known of a GPU, within LIMIT seconds; docs/gpu.md tells what comes of it.
#
#   scripts/gpu.sh                        with the Python that has PyTorch
#   DEVICE=cpu TINY=1 scripts/gpu.sh      whether all of it runs, without a GPU; measures nothing
#
# PYTHON, LIMIT, PARTS, SEED, RESULTS, WORK, WHEELS, COMMIT: see docs/gpu.md.
set -euo pipefail
started=$(date +%s)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
work=${WORK:-outputs/gpu}
device=${DEVICE:-cuda}

mkdir -p "$work"
# Beside what this Python has, not in it: neither PyTorch nor anything else is changed.
"$python" scripts/install_wheels.py "${WHEELS:-wheels}" "$work/site"
site=$(cd "$work" && pwd)/site
export PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 NO_ALBUMENTATIONS_UPDATE=1

options=(--device "$device" --limit "${LIMIT:-540}" --started "$started" --work "$work" --seed "${SEED:-0}")
if [[ -n ${TINY:-} && $TINY != 0 ]]; then options+=(--tiny); fi
if [[ -n ${RESULTS:-} ]]; then options+=(--results "$RESULTS"); fi
# Last, since they are several.
read -ra parts <<<"${PARTS:-}"
if ((${#parts[@]})); then options+=(--parts "${parts[@]}"); fi
exec "$python" -m idd_seg.benchmarks.gpu "${options[@]}"
