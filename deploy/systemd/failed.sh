#!/usr/bin/env bash
# failed.sh HOOK UNIT: runs the operator's HOOK with the unit's name and the end of its journal on
# standard input; without a hook it writes to the journal, at the level of an alert.
set -euo pipefail
hook=$1
unit=$2
journal() { journalctl --no-pager --lines 30 --unit "$unit" 2>/dev/null || true; }
if [ -x "$hook" ]; then
  journal | "$hook" "$unit"
else
  logger --priority user.alert "nearfield: $unit failed; journalctl -u $unit says why"
fi
