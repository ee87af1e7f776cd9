#!/usr/bin/env bash
# Makes .env (or the file that is named) with fresh secrets for docker-compose.yml, readable by you only. Never
# overwrites one that is there.
set -euo pipefail
file=${1:-$(dirname "$0")/../.env}
umask 077

hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

if [[ -e $file ]]; then
    echo "There is one already; it was not touched." >&2
    exit 1
fi
cat >"$file" <<END
# Customers' addresses are sealed with this; without it they cannot be read again. Keep a copy in a safe place.
HEADSUP_SECRET=$(head -c 32 /dev/urandom | base64)
# What REST callers give as "Authorization: Bearer …".
HEADSUP_API_KEY=hu_$(hex 24)
# Of the database in the volume postgres-data, which takes it at its first start.
POSTGRES_PASSWORD=$(hex 24)
# For the user admin of Grafana, with --profile observe.
GRAFANA_PASSWORD=$(hex 16)
END
echo "Made. Keep a copy of it in a safe place."
