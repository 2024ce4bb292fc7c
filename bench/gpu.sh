#!/usr/bin/env bash
# All that fxgrad claims of a GPU, measured by one command of at most ten minutes on one card:
#
#     bash bench/gpu.sh [--device cuda|cpu] [--out DIR] [--parts "repair truth watching size"]
#
# Each part has a time limit of its own and writes gpu_PART.md and gpu_PART.json (default: bench/results) as it goes; a part that
# fails or runs out of time does not stop the others, and the exit status is then 1. `--device cpu` is a dry run of every line at tiny
# sizes: its figures mean nothing. Needs torch and tabulate; no network.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device=cuda
out=bench/results
parts="repair truth watching size"
while (($#)); do
  case "$1" in
    --device) device="$2"; shift 2 ;;
    --out) out="$2"; shift 2 ;;
    --parts) parts="$2"; shift 2 ;;
    *) echo "usage: bash bench/gpu.sh [--device cuda|cpu] [--out DIR] [--parts \"repair truth watching size\"]" >&2; exit 2 ;;
  esac
done

python="$(command -v python || command -v python3)"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
declare -A limit=([repair]=290 [truth]=140 [watching]=90 [size]=60)
all=590
if [[ "$device" == cpu ]]; then # nobody waits for a card, and the machine may be busy: a dry run is to end, not to be fast
  for part in "${!limit[@]}"; do limit[$part]=$((limit[$part] * 6)); done
  all=$((all * 6))
fi

status=0
for part in $parts; do
  printf '\n== %s (%ds of at most %ds in all)\n' "$part" "$SECONDS" "$all"
  timeout --kill-after=5 "${limit[$part]}" "$python" -W ignore -m "bench.gpu.$part" --device "$device" --out "$out"
  code=$?
  if ((code)); then
    echo "== $part ended with $code (124: over its ${limit[$part]} s)" >&2
    status=1
  fi
done
printf '\n== done in %ds, status %d\n' "$SECONDS" "$status"
exit "$status"
