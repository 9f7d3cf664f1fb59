#!/usr/bin/env bash
# MLflow's tracking server with PostgreSQL as its store and a folder for artifacts, until Ctrl-C. On the head:
#
#   jobs/cluster_mlflow.sh DIR [HOST [PORT]]
#
# DIR holds the database and artifacts, and is gone on with where it stands: a disk of the head, not NFS. HOST is the
# address to listen on: 127.0.0.1, or the head's own in a private network, for other nodes. ARTIFACTS=s3://BUCKET/PREFIX
# puts artifacts elsewhere. PostgreSQL listens on a socket in DIR only and lets in nobody but the user it runs as, so
# there is no password. It refuses to run as root.
set -euo pipefail
folder=$(realpath -m "${1:?a folder for the database and the artifacts}")
host=${2:-127.0.0.1}
port=${3:-5000}

if [ "$(id -u)" = 0 ]; then
    echo "PostgreSQL does not run as root: log in as another user" >&2
    exit 2
fi
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)
umask 077
mkdir -p "$folder"
if [ ! -f "$folder/postgres/PG_VERSION" ]; then
    initdb --pgdata "$folder/postgres" --auth-local peer --auth-host reject --encoding UTF8 > "$folder/initdb.log"
fi
pg_ctl start --silent --wait --pgdata "$folder/postgres" --log "$folder/postgres.log" \
    --options "-c listen_addresses='' -c unix_socket_directories='$folder' -c max_connections=200"
trap 'pg_ctl stop --silent --mode fast --pgdata "$folder/postgres"' EXIT
createdb --host "$folder" mlflow 2> /dev/null || psql --host "$folder" --dbname mlflow --quiet --command 'select 1' > /dev/null

export MLFLOW_DISABLE_TELEMETRY=true
mlflow server --backend-store-uri "postgresql+psycopg2:///mlflow?host=$folder" \
    --artifacts-destination "${ARTIFACTS:-$folder/artifacts}" --host "$host" --port "$port" --workers 1 &
server=$!
trap 'kill "$server" 2> /dev/null' INT TERM
wait "$server" || wait "$server" || true
