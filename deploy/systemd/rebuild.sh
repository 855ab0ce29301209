#!/usr/bin/env bash
# rebuild.sh FOLDER: what the timer calls. FOLDER/job.toml is run on this machine, or, where
# FOLDER/machines.toml is there, on machines that are made for it and deleted after it.
# Leaves the time of the last success in NEARFIELD_STATE/last-success, for fresh.sh. Stopped, it
# tells the command and waits for it: systemd kills at once what is left when this script has ended,
# and the command has machines to delete.
set -euo pipefail
folder=$1
state=${NEARFIELD_STATE:-/var/lib/nearfield}
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
nearfield=${NEARFIELD:-$source/.venv/bin/nearfield}

run() {
  "$@" &
  local command=$! stopped code
  trap 'stopped=yes; kill -TERM "$command" 2>/dev/null || true' TERM INT HUP
  while :; do
    stopped='' code=0
    wait "$command" || code=$?
    # a signal ends the waiting, not the command
    [ -n "$stopped" ] || return "$code"
  done
}

if [ ! -f "$folder/job.toml" ]; then
  echo "expected a job file at $folder/job.toml" >&2
  exit 2
fi
if [ -f "$folder/machines.toml" ]; then
  run "${NEARFIELD_REBUILD:-$source/vm_scripts/rebuild}" "$folder/job.toml"
else
  run "$nearfield" run "$folder/job.toml"
fi
date -u +%Y-%m-%dT%H:%M:%SZ >"$state/.last-success.new"
mv "$state/.last-success.new" "$state/last-success"
