#!/usr/bin/env bats
# nearfield/clusters/host.sh: a service is started once, known by more than its pid, and stopped whole.

setup() {
  root=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  place=$BATS_TEST_TMPDIR/service
  mkdir -p "$place"
}

teardown() { host stop >/dev/null 2>&1 || true; }

# as over SSH: everything comes on the standard input of sh
host() {
  { echo "folder=$place role=${role:-worker}"; cat "$root/nearfield/clusters/host.sh"; echo "$*"; } | sh -s
}

@test "a service outlives its shell, logs to a file, and isn't started twice" {
  run host 'start sh -c "echo hello; exec sleep 100"'
  [[ $output == started* ]]
  pid=${output#started }
  kill -0 "$pid"
  run host 'start sh -c "exec sleep 100"'
  [ "$output" = "running $pid" ]
  run host status
  [ "$output" = "running $pid" ]
  for _ in $(seq 50); do grep -q hello "$place/worker.log" && break; sleep 0.1; done
  grep -q hello "$place/worker.log"
}

@test "stop ends the whole group, also what ignores to be told" {
  host 'start sh -c "trap : TERM; sleep 100 & sleep 100 & wait; wait; exec sleep 100"' >/dev/null
  pid=$(cut -d ' ' -f 1 "$place/worker.pid")
  run host 'grace_tenths=5; stop'
  [ "$output" = stopped ]
  ! kill -0 -- "-$pid" 2>/dev/null
  run host status
  [ "$output" = absent ]
  run host stop
  [ "$output" = absent ]
}

@test "another process with the recorded pid isn't taken for the service, and isn't killed" {
  sleep 100 &
  other=$!
  echo "$other 12345" >"$place/worker.pid"
  run host status
  [ "$output" = absent ]
  run host stop
  [ "$output" = absent ]
  kill -0 "$other"
  kill "$other"
}

@test "waiting for a service that ends says the end of its log" {
  run host 'start sh -c "echo no such interface; exit 1"; wait_for "$folder/ready" 5'
  [ "$status" -ne 0 ]
  [[ $output == *"no such interface"* ]]
}

@test "another authority is refused while a service runs" {
  echo one >"$place/ca.pem"
  echo two >"$place/new"
  host 'start sleep 100' >/dev/null
  run host 'same_authority "$folder/new"'
  [ "$status" -ne 0 ]
  cp "$place/ca.pem" "$place/new"
  run host 'same_authority "$folder/new"'
  [ "$status" -eq 0 ]
}
