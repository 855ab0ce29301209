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
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m vm_scripts.main "$(basename "$0")" "$@"
