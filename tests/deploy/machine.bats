#!/usr/bin/env bats
# The dead-man switch and the timer's scripts, with real files and stand-ins for what they call.

setup() {
  root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  deadman=$root/deploy/machine/deadman.sh
  export NEARFIELD_HEARTBEAT=$BATS_TEST_TMPDIR/run/heartbeat
  export NEARFIELD_POWER_OFF="touch $BATS_TEST_TMPDIR/off"
  etc=$BATS_TEST_TMPDIR/etc
  export NEARFIELD_STATE=$BATS_TEST_TMPDIR/state
  mkdir -p "$etc" "$NEARFIELD_STATE"
}

beat() { mkdir -p "$(dirname "$NEARFIELD_HEARTBEAT")" && touch -d "$1" "$NEARFIELD_HEARTBEAT"; }

@test "a fresh machine gets its time to be found" {
  run "$deadman" 30
  [ "$status" -eq 0 ]
  [ -e "$NEARFIELD_HEARTBEAT" ]
  [ ! -e "$BATS_TEST_TMPDIR/off" ]
}

@test "a heartbeat keeps the machine on" {
  beat "-29 minutes"
  run "$deadman" 30
  [ "$status" -eq 0 ]
  [ ! -e "$BATS_TEST_TMPDIR/off" ]
}

@test "a driver that is gone powers the machine off" {
  beat "-31 minutes"
  run "$deadman" 30
  [ "$status" -eq 0 ]
  [ -e "$BATS_TEST_TMPDIR/off" ]
}

@test "minutes that are no number never power off" {
  beat "-2 days"
  for minutes in "" 0 -5 soon; do
    run "$deadman" "$minutes"
    [ "$status" -eq 2 ]
  done
  [ ! -e "$BATS_TEST_TMPDIR/off" ]
}

@test "the rebuild runs here, or on machines where they are described, and notes its success" {
  printf '#!/bin/sh\necho here "$@" >>%s/did\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/here"
  printf '#!/bin/sh\necho rented "$@" >>%s/did\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/rented"
  chmod +x "$BATS_TEST_TMPDIR/here" "$BATS_TEST_TMPDIR/rented"
  export NEARFIELD=$BATS_TEST_TMPDIR/here NEARFIELD_REBUILD=$BATS_TEST_TMPDIR/rented
  touch "$etc/job.toml"
  "$root/deploy/systemd/rebuild.sh" "$etc"
  touch "$etc/machines.toml"
  "$root/deploy/systemd/rebuild.sh" "$etc"
  run cat "$BATS_TEST_TMPDIR/did"
  [ "${lines[0]}" = "here run $etc/job.toml" ]
  [ "${lines[1]}" = "rented $etc/job.toml" ]
  run "$root/deploy/systemd/fresh.sh" "$NEARFIELD_STATE/last-success" 1
  [ "$status" -eq 0 ]
}

@test "a rebuild that fails passes its code on and notes no success" {
  printf '#!/bin/sh\nexit 4\n' >"$BATS_TEST_TMPDIR/here"
  chmod +x "$BATS_TEST_TMPDIR/here"
  touch "$etc/job.toml"
  NEARFIELD=$BATS_TEST_TMPDIR/here run "$root/deploy/systemd/rebuild.sh" "$etc"
  [ "$status" -eq 4 ]
  [ ! -e "$NEARFIELD_STATE/last-success" ]
}

@test "a rebuild whose script is stopped is told, and waited for" {
  printf '#!/bin/sh\ntrap "sleep 1; touch %s/cleaned; exit 130" TERM\ntouch %s/begun\n' \
    "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/here"
  echo 'for _ in $(seq 100); do sleep 0.1; done' >>"$BATS_TEST_TMPDIR/here"
  chmod +x "$BATS_TEST_TMPDIR/here"
  touch "$etc/job.toml"
  NEARFIELD=$BATS_TEST_TMPDIR/here "$root/deploy/systemd/rebuild.sh" "$etc" 3>&- &
  service=$!
  until [ -e "$BATS_TEST_TMPDIR/begun" ]; do sleep 0.1; done
  kill -TERM "$service"
  code=0
  wait "$service" || code=$?
  [ -e "$BATS_TEST_TMPDIR/cleaned" ]
  [ "$code" -eq 130 ]
  [ ! -e "$NEARFIELD_STATE/last-success" ]
}

@test "a rebuild without a job file is a wrong setting" {
  run "$root/deploy/systemd/rebuild.sh" "$etc"
  [ "$status" -eq 2 ]
}

@test "a matrix that is old, or was never made, fails the freshness check" {
  run "$root/deploy/systemd/fresh.sh" "$NEARFIELD_STATE/last-success" 9
  [ "$status" -eq 1 ]
  date -u -d "-9 days -1 minute" +%Y-%m-%dT%H:%M:%SZ >"$NEARFIELD_STATE/last-success"
  run "$root/deploy/systemd/fresh.sh" "$NEARFIELD_STATE/last-success" 9
  [ "$status" -eq 1 ]
  [[ $output == *"9 days old"* ]]
}

@test "the failure hook gets the unit's name" {
  printf '#!/bin/sh\ncat >/dev/null\necho "$1" >%s/told\n' "$BATS_TEST_TMPDIR" >"$etc/failed"
  chmod +x "$etc/failed"
  "$root/deploy/systemd/failed.sh" "$etc/failed" nearfield-rebuild.service
  [ "$(cat "$BATS_TEST_TMPDIR/told")" = nearfield-rebuild.service ]
}

@test "a cluster's entry point wants credentials, or to be told that there are none" {
  run env -u NEARFIELD_TLS_CA "$root/deploy/docker/entrypoint.sh" scheduler
  [ "$status" -eq 2 ]
  [[ $output == *NEARFIELD_INSECURE* ]]
}
