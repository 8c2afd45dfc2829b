#!/usr/bin/env bash
# The cluster as a user meets it: ray up, ray submit, a machine that dies, a connection that is lost, the same command
# again, ray down. Three machines in namespaces (lab.sh), so it needs root, openssh-server, rsync and iproute2, and no
# network. Whatever becomes of it, nothing of it stays; it touches no process of anybody else.
#   PYTHON=.venv/bin/python tests/cluster/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
if [ -z "${LAB:-}" ]; then
  reason=$(bash tests/cluster/lab.sh check) || { echo "cluster test: SKIPPED: $reason"; exit 0; }
  exec bash tests/cluster/lab.sh bash tests/cluster/run.sh
fi

say() { echo "cluster test: $(date +%T) $*"; }
fail() { trap - ERR; say "FAILED: $*"; tail -n 40 "$LAB"/*.log >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
within() { # SECONDS WHAT COMMAND...: until it succeeds
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "$what: not in time"
    sleep 0.5
  done
}
on() { bash tests/cluster/lab.sh on "$@"; }
on_head() { on head bash --login -i -c "source ~/.bashrc; $*" 2>/dev/null; }
plain=(--log-style=record --log-color=false)
shared=$LAB/shared sweep=$LAB/shared/bip_unstructured space=(--space bip_unstructured --profile demo)

(umask 077; mkdir ~/.ray; "$PYTHON" -c 'import secrets; print(secrets.token_hex(32))' >~/.ray/auth_token)
sed -i "s|head_ip: .*|head_ip: 10.77.0.2|; s|worker_ips: .*|worker_ips: [10.77.0.3]|; s|ssh_user: .*|ssh_user: root|;
  s|SWEEP_STORAGE=[^ ]*|SWEEP_STORAGE=$shared|" cluster.yaml
say "ray up"
ray up -y "${plain[@]}" cluster.yaml >"$LAB/up.log" 2>&1 || fail "ray up"
both() { [ "$(on_head ray list nodes --format json | grep -o '"state": "ALIVE"' | wc -l)" = 2 ]; }
within 600 "the worker's raylet" on worker pgrep raylet
within 600 "the worker's joining" both

say "without the token nothing can be entered"
"$PYTHON" tests/cluster/doors.py 10.77.0.2 10.77.0.3 >"$LAB/doors.log" 2>&1 || fail "a door was open"
cat "$LAB/doors.log"

say "ray submit"
submit() { ray submit "${plain[@]}" cluster.yaml sweep.py "${space[@]}"; }
finished() { { grep -ls '"status": "complete"' "$sweep"/trials/*/state.json || true; } | wc -l; }
on_worker() { grep -ls '"host": "worker"' "$sweep"/trials/*/state.json; }
submit >"$LAB/first.log" 2>&1 &
first=$!
within 600 "a trial on the worker" on_worker
before=$(finished)
say "the worker's raylet is killed, $before of 24 trials done"
on worker pkill -KILL raylet
more() { [ "$(finished)" -ge $((before + 2)) ]; }
within 600 "going on without the worker" more
say "the connection is lost, $(finished) of 24 trials done"
pkill -KILL -f '^ssh .*sweep\.py' || fail "no connection to lose"
wait $first && fail "ray submit ended well without its connection"
quiet() { ! on head pgrep -f sweep.py; }
within 600 "the driver's end" quiet
kept=$(finished)
[ "$kept" -lt 24 ] || fail "the sweep was over before it was interrupted"

say "the same command again, $kept of 24 trials done"
submit >"$LAB/second.log" 2>&1 || fail "the second ray submit"
[ "$(finished)" = 24 ] || fail "$(finished) of 24 trials are complete"
for table in trials epochs layers; do
  [ -s "$sweep/tables/$table.parquet" ] || fail "the table $table is missing"
done
say "one machine, one trial after the other, gives the same rows"
serial() { RAY_AUTH_MODE=disabled "$PYTHON" sweep.py "${space[@]}" --storage "$LAB/serial" --address local --serial; }
{ serial || serial; } >"$LAB/serial.log" 2>&1 || fail "the serial run" # a busy machine may not start a Ray in its 30 s
PYTHONPATH=. "$PYTHON" tests/cluster/same_rows.py "$LAB/serial/bip_unstructured" "$sweep" || fail "the rows differ"

say "ray down"
ray down -y "${plain[@]}" cluster.yaml >"$LAB/down.log" 2>&1 || fail "ray down"
stopped() { ! on head pgrep gcs_server; }
within 600 "the head's end" stopped
say "PASSED"
