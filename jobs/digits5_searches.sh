#!/usr/bin/env bash
# A search of 24 trials for every row of jobs/digits5.yaml, then the suite with what they found; minutes in all.
# What is cut off goes on when it is called again. Options that tune and benchmark share are passed on, --storage too:
#   jobs/digits5_searches.sh --address auto --storage /shared/runs
set -euo pipefail
cd "$(dirname "$0")/.."

runs=runs before=
for word in "$@"; do
    if [ "$before" = --storage ]; then runs=$word; fi
    case $word in --storage=*) runs=${word#*=} ;; esac
    before=$word
done

settings=()
search() {
    local row=$1 name="${1}_digits5"
    shift
    if [ -d "$runs/$name" ]; then set -- "$@" --resume; fi
    python -m bbh_dist.tune --name "$name" --seeds 1 "$@"
    settings+=(--set "settings.$row=$runs/$name/settings.yaml")
}

for method in map ensemble dropout bbb mnf; do
    search "$method" --space "tune_spaces/${method}_digits5.yaml" "$@"
done
for kind in single sliced layerwise; do
    search "bbh-$kind" --space tune_spaces/bbh.yaml --set "search.method.generator.kind={choice: [$kind]}" "$@"
done
if [ -d "$runs/digits5_tuned" ]; then set -- "$@" --resume; fi
python -m bbh_dist.benchmark --suite jobs/digits5.yaml --name digits5_tuned --seeds 3 "${settings[@]}" "$@"
