#!/bin/sh
# deadman MINUTES [USER]: powers this machine off when the driver's heartbeat is older than that.
# The driver touches the heartbeat as USER while it works; a fresh machine gets MINUTES to be found.
# A rented machine that is off is still paid for: `vm_scripts/down` deletes it.
set -eu
minutes=$1
user=${2:-nearfield}
heartbeat=${NEARFIELD_HEARTBEAT:-/run/nearfield/heartbeat}
power_off=${NEARFIELD_POWER_OFF:-systemctl poweroff}

case $minutes in
'' | *[!0-9]* | 0) echo "expected whole minutes, got '$minutes'" >&2; exit 2 ;;
esac
if [ ! -e "$heartbeat" ]; then
  mkdir -p "$(dirname "$heartbeat")"
  : >"$heartbeat"
  # the driver isn't root
  if id "$user" >/dev/null 2>&1; then chown -R "$user" "$(dirname "$heartbeat")"; fi
  exit 0
fi
if [ -z "$(find "$heartbeat" -mmin "-$minutes")" ]; then
  echo "no heartbeat for $minutes minutes: powering off" >&2
  # shellcheck disable=SC2086  # a command with its words
  exec $power_off
fi
