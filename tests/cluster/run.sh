#!/usr/bin/env bash
# The cluster as a user sees it: ray up, ray submit, a machine that dies, a lost connection, the same command again, ray
# down. It runs three machines in namespaces (lab.sh), so it needs root, openssh-server, rsync and iproute2, but no
# network. However it ends, it leaves nothing behind and touches no other process on this machine.
#   PYTHON=.venv/bin/python tests/cluster/run.sh
# fault: raylet-sigkill
# fault: driver-signals
source "$(dirname "$0")/steps.sh"
# Trials long enough for the worker, whose first process takes some seconds to start, to get some of them.
space=(--space bip_unstructured --profile demo --set trial.prune.epochs=30)

begin
say "without the token nothing can be entered"
"$PYTHON" tests/cluster/doors.py 10.77.0.2 10.77.0.3 >"$LAB/doors.log" 2>&1 || fail "a door was open"
cat "$LAB/doors.log"

say "ray submit"
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
same_as_serial
end
