# Runs on a host of the cluster, as the standard input of `sh -s`: keeps one service per role.
# Expects: folder (of the cluster), role. Services outlive the SSH session and log to a file.
# shellcheck shell=sh disable=SC2154
set -eu
umask 077

# pid and start time of the service: a pid alone may belong to another process by now
recorded() { cat "$folder/$role.pid" 2>/dev/null || true; }
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

running_pid() {
  line=$(recorded)
  [ -n "$line" ] || return 1
  [ "$(started_at "${line% *}")" = "${line#* }" ] || return 1
  printf '%s\n' "${line% *}"
}

# start COMMAND...: a session of its own, so that its whole group can be stopped
start() {
  if pid=$(running_pid); then
    printf 'running %s\n' "$pid"
    return
  fi
  (
    cd "$folder"
    # when memory runs out the kernel should take a worker, which costs a retry
    if [ "$role" = worker ]; then echo 500 >/proc/self/oom_score_adj || true; fi
    exec setsid "$@"
  ) >>"$folder/$role.log" 2>&1 </dev/null &
  pid=$!
  printf '%s %s\n' "$pid" "$(started_at "$pid")" >"$folder/$role.pid"
  printf 'started %s\n' "$pid"
}

# the last errors in the log, or else its end
complaints() {
  found=$(grep -E '^[A-Za-z_.]*(Error|Exception)(:|$)' "$folder/$role.log" | tail -n 5) || true
  if [ -n "$found" ]; then printf '%s\n' "$found"; else tail -n 5 "$folder/$role.log"; fi
}

# wait_for FILE SECONDS: until the service has written it; fails when the service ends before
wait_for() {
  tenths=$(($2 * 10))
  while [ ! -s "$1" ]; do
    if ! running_pid >/dev/null || [ "$tenths" -le 0 ]; then
      complaints >&2
      return 1
    fi
    tenths=$((tenths - 1))
    sleep 0.1
  done
}

stop() {
  if ! pid=$(running_pid); then
    rm -f "$folder/$role.pid"
    echo absent
    return
  fi
  # the whole group; dash knows neither -- nor -s before it
  kill -TERM "-$pid"
  tenths=${grace_tenths:-100}
  while kill -0 "-$pid" 2>/dev/null; do
    tenths=$((tenths - 1))
    if [ "$tenths" -eq 0 ]; then kill -KILL "-$pid" || true; fi
    if [ "$tenths" -lt -50 ]; then
      echo "$role (process group $pid) can't be stopped" >&2
      return 1
    fi
    sleep 0.1
  done
  rm -f "$folder/$role.pid"
  echo stopped
}

status() {
  if pid=$(running_pid); then printf 'running %s\n' "$pid"; else echo absent; fi
}

# same_authority FILE: fails when a service runs here with another authority than FILE's
same_authority() {
  if [ -s "$folder/ca.pem" ] && ! cmp -s "$1" "$folder/ca.pem"; then
    for role in scheduler worker; do
      if running_pid >/dev/null; then
        echo "a $role of another start of this cluster runs here: take it down first" >&2
        return 1
      fi
    done
  fi
}
