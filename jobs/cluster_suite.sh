#!/usr/bin/env bash
# A suite on the cluster; give --suite, --seeds, --methods or --set, or --resume.
#
#   STORAGE=/shared/runs TRACKING=http://10.0.0.5:5000 jobs/cluster_suite.sh --suite jobs/digits5.yaml
exec "$(dirname "$0")/cluster_submit.sh" benchmark "$@"
