#!/bin/sh
# nearfield-entrypoint scheduler | worker [ADDRESS] | health | any command of nearfield
#
# Credentials of a cluster are files, named by NEARFIELD_TLS_CA, NEARFIELD_TLS_CERT and
# NEARFIELD_TLS_KEY; with them everything is encrypted and nobody without a certificate is let in.
# NEARFIELD_INSECURE=1 allows a cluster without, on a network that is closed by other means.
set -eu

# Dask's own variables, for scheduler, worker and client alike
credentials() {
  if [ -n "${NEARFIELD_TLS_CA:-}" ]; then
    export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
    export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$NEARFIELD_TLS_CA"
    for role in SCHEDULER WORKER CLIENT; do
      export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$NEARFIELD_TLS_CERT"
      export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$NEARFIELD_TLS_KEY"
    done
    protocol=tls
  elif [ "${NEARFIELD_INSECURE:-}" = 1 ]; then
    protocol=tcp
  else
    echo "a cluster needs NEARFIELD_TLS_CA, _CERT and _KEY, or NEARFIELD_INSECURE=1" >&2
    exit 2
  fi
}

# native calls are long and silent; a job without workers shall end
native_work() {
  export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="${NEARFIELD_WORKER_TTL:-30 minutes}"
  export DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT="${NEARFIELD_NO_WORKERS_TIMEOUT:-10 minutes}"
  export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False
  export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False
  export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False
  export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
  export DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=500ms
}

role=${1:-}
case $role in
scheduler)
  shift
  credentials
  native_work
  echo scheduler >/tmp/nearfield-role
  exec dask scheduler --protocol "$protocol" --port 8786 \
    --dashboard-address "${NEARFIELD_DASHBOARD:-127.0.0.1:8787}" "$@"
  ;;
worker)
  shift
  credentials
  native_work
  # as nearfield/kept_memory.py says, and why
  export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=1073741824
  echo worker >/tmp/nearfield-role
  workers=${NEARFIELD_WORKERS:-1}
  # of the container's memory; left to itself Dask gives each the share of its cores in the host's
  exec dask worker --protocol "$protocol" --nthreads 1 --nworkers "$workers" \
    --memory-limit "$(python -c "print(1 / $workers)")" --no-dashboard \
    --local-directory /tmp/scratch --death-timeout 120 \
    "${@:-$protocol://scheduler:8786}"
  ;;
health)
  # a service must listen, or have its workers; any other command is judged by its exit code
  case $(cat /tmp/nearfield-role 2>/dev/null || true) in
  scheduler) exec python -c "import socket; socket.create_connection(('127.0.0.1', 8786), 5)" ;;
  worker) exec python -c "import psutil, sys; sys.exit(not psutil.Process(1).children())" ;;
  *) exit 0 ;;
  esac
  ;;
*)
  exec nearfield "$@"
  ;;
esac
