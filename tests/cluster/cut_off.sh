#!/usr/bin/env bash
# A network partition, with the sweep submitted by `ray job submit`. The link between head and worker is cut during the
# sweep and restored later; both can access the storage all the time. The worker's trial is given up and continues
# elsewhere, no retry is spent, and nothing is done twice.
# Like run.sh, it needs root, openssh-server, rsync and iproute2 but no network, and leaves nothing behind.
#   PYTHON=.venv/bin/python tests/cluster/cut_off.sh
# fault: network-cut
source "$(dirname "$0")/steps.sh"
# One trial per machine, longer than Ray waits for an unresponsive machine (about a minute).
space=(--space bip_unstructured --profile demo --samples 1 --set grid.density=[0.2] --set "resources.cpu=$(nproc)"
  --set trial.prune.epochs=600 --set trial.checkpoint_every_s=1)

begin
say "ray job submit"
ray dashboard cluster.yaml >"$LAB/tunnel.log" 2>&1 &
export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
within 60 "the tunnel" ray job list
ray job submit --working-dir . -- python sweep.py "${space[@]}" --storage "$shared" >"$LAB/submit.log" 2>&1 &
submitted=$!
mine() { on_worker | xargs grep -l '"checkpoint": "'; } # it has committed a checkpoint
within 600 "a trial on the worker" mine
trial=$(on_worker)
say "the worker is cut off"
ip link set to-worker down
elsewhere() { grep -q '"host": "head"' "$trial"; }
within 600 "its trial's going on elsewhere" elsewhere
say "it was given up, its trial goes on elsewhere; the cable is put back"
ip link set to-worker up
wait $submitted || fail "ray job submit"
grep -q 'its process died' "$LAB/submit.log" || fail "nothing was said"
[ "$(finished)" = 2 ] || fail "$(finished) of 2 trials are complete"
grep -q '"attempt": 2' "$trial" || fail "it was not handed out twice: $(cat "$trial")"
grep -q '"failures": 0' "$trial" || fail "a retry was spent: $(cat "$trial")"
same_as_serial
end
