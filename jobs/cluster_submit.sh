#!/usr/bin/env bash
# Submits one of this project's commands as a job to the cluster behind `ray dashboard FILE`, and follows it; Ctrl-C
# stops following, not the job. jobs/cluster_{search,suite,train}.sh call it.
#
#   STORAGE=DIR TRACKING=URI [DASHBOARD=URL] jobs/cluster_submit.sh COMMAND [OPTIONS]
#
# STORAGE is a folder that all nodes share, TRACKING a tracking server that all nodes reach.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${STORAGE:?a folder that all nodes share, such as /shared/runs}"
: "${TRACKING:?a tracking server, such as http://10.0.0.5:5000, see jobs/cluster_mlflow.sh}"
export RAY_AUTH_MODE=token
command=$1
shift

# The driver runs on the head and holds nothing of it; runs ask for what their file says.
exec ray job submit --address "${DASHBOARD:-http://127.0.0.1:8265}" --runtime-env jobs/cluster_env.yaml \
    --entrypoint-resources '{"node:__internal_head__": 0.001}' \
    -- python -m "bbh_dist.$command" --address auto \
    --storage "$STORAGE" --tracking-uri "$TRACKING" "$@"
