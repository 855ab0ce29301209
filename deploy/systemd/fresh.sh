#!/usr/bin/env bash
# fresh.sh FILE DAYS: fails when the last success noted in FILE is older than DAYS, or isn't there.
set -euo pipefail
file=$1
days=$2
if [ ! -s "$file" ]; then
  echo "no rebuild has succeeded yet: $file isn't there" >&2
  exit 1
fi
then=$(date -u -d "$(cat "$file")" +%s)
age=$((($(date -u +%s) - then) / 86400))
if [ "$age" -ge "$days" ]; then
  echo "the matrix is $age days old; expected less than $days. See: journalctl -u nearfield-rebuild" >&2
  exit 1
fi
echo "the matrix is $age days old"
