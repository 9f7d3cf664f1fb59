#!/usr/bin/env bash
# A search on the cluster; give --space, --workers, --trials or --set, or --resume.
#
#   STORAGE=/shared/runs TRACKING=http://10.0.0.5:5000 jobs/cluster_search.sh --space tune_spaces/bbh.yaml
exec "$(dirname "$0")/cluster_submit.sh" tune "$@"
