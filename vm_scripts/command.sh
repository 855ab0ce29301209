#!/usr/bin/env bash
# up, status, run, fetch, down, cost and rebuild are links to this: it starts the command of its
# name with the checkout's own Python, or the one that NEARFIELD_PYTHON names.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${NEARFIELD_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
  echo "no Python at $python: run 'make setup', or set NEARFIELD_PYTHON" >&2
  exit 2
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# -P: modules come from there and from the installation, not from whatever lies in this folder
exec "$python" -P -m vm_scripts.main "$(basename "$0")" "$@"
