#!/usr/bin/env bash
# One training over several workers on the cluster; give --job, --workers or --set, or --resume.
#
#   STORAGE=/shared/runs TRACKING=http://10.0.0.5:5000 jobs/cluster_train.sh --job jobs/digits5_bbh.yaml --workers 2
exec "$(dirname "$0")/cluster_submit.sh" train "$@"
