#!/usr/bin/env bash
# rebuild.sh FOLDER: what the timer calls. FOLDER/job.toml is run on this machine, or, where
# FOLDER/machines.toml is there, on machines that are made for it and deleted after it.
# Leaves the time of the last success in NEARFIELD_STATE/last-success, for fresh.sh.
set -euo pipefail
folder=$1
state=${NEARFIELD_STATE:-/var/lib/nearfield}
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
nearfield=${NEARFIELD:-$source/.venv/bin/nearfield}

if [ ! -f "$folder/job.toml" ]; then
  echo "expected a job file at $folder/job.toml" >&2
  exit 2
fi
if [ -f "$folder/machines.toml" ]; then
  "${NEARFIELD_REBUILD:-$source/vm_scripts/rebuild}" "$folder/job.toml"
else
  "$nearfield" run "$folder/job.toml"
fi
date -u +%Y-%m-%dT%H:%M:%SZ >"$state/.last-success.new"
mv "$state/.last-success.new" "$state/last-success"
