#!/usr/bin/env bash
# The cluster as a user meets it: ray up, ray submit, a machine that dies, a connection that is lost, the same command
# again, ray down. Three machines in network namespaces (lab.sh). Needs root, openssh-server, rsync and iproute2.
#   PYTHON=.venv/bin/python tests/cluster/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
skip() { echo "cluster test: SKIPPED: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "it needs root"
for tool in sshd rsync ip nsenter unshare; do
  [ -n "$(PATH=$PATH:/usr/sbin command -v $tool)" ] || skip "it needs $tool (openssh-server, rsync, iproute2, util-linux)"
done
export PYTHON=$(cd "$(dirname "${PYTHON:-.venv/bin/python}")" && pwd)/$(basename "${PYTHON:-python}")
export LAB=$(mktemp -d /var/tmp/sweep-lab-XXXXXX)
lab() { bash tests/cluster/lab.sh "$@"; }
unshare --mount --net --pid --fork true 2>/dev/null || skip "namespaces are not allowed here"
ended() { lab down; rm -rf "$LAB"; }
trap ended EXIT
say() { echo "cluster test: $(date +%T) $*"; }
fail() { say "FAILED: $*"; tail -n 40 "$LAB"/*.log >&2; exit 1; }
within() { # SECONDS WHAT COMMAND...: until it succeeds
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq "$seconds"); do "$@" >/dev/null 2>&1 && return; sleep 1; done
  fail "$what did not happen within $seconds s"
}

lab up
project=$LAB/client/home/project shared=$LAB/shared
mkdir -p "$project" "$shared" "$LAB/client/home/.ray"
git ls-files -z --cached --others --exclude-standard | grep -zv '^results/' | xargs -0 cp --parents -t "$project"
(umask 077; "$PYTHON" -c 'import secrets; print(secrets.token_hex(32))' >"$LAB/client/home/.ray/auth_token")
sed -i "s|head_ip: .*|head_ip: 10.77.0.2|; s|worker_ips: .*|worker_ips: [10.77.0.3]|; s|ssh_user: .*|ssh_user: root|;
  s|SWEEP_STORAGE=[^ ]*|SWEEP_STORAGE=$shared|" "$project/cluster.yaml"
client() { lab in client env -C "$HOME/project" "$@"; }
head() { lab in head bash --login -i -c "source ~/.bashrc; $*" 2>/dev/null; }

say "ray up"
client ray up -y --no-config-cache --log-style=record --log-color=false cluster.yaml >"$LAB/up.log" 2>&1 || fail "ray up"
both() { [ "$(head ray list nodes --format json 2>/dev/null | grep -c '"state": "ALIVE"')" = 2 ]; }
within 300 "the worker's joining" both

say "without the token nothing can be entered"
client "$PYTHON" tests/cluster/doors.py 10.77.0.2 10.77.0.3 >"$LAB/doors.log" 2>&1 || fail "a door was open"
cat "$LAB/doors.log"

say "ray submit"
space=(--space bip_unstructured --profile demo)
submit() { client ray submit --log-style=record --log-color=false cluster.yaml sweep.py "${space[@]}"; }
sweep=$shared/bip_unstructured
finished() { grep -l '"status": "complete"' "$sweep"/trials/*/state.json 2>/dev/null | wc -l; }
on_worker() { grep -l '"host": "worker"' "$sweep"/trials/*/state.json; }
submit >"$LAB/first.log" 2>&1 &
first=$!
within 600 "a trial on the worker" on_worker
say "the worker's raylet is killed, $(finished) of 24 trials done"
lab in worker pkill -KILL raylet
before=$(finished)
more() { [ "$(finished)" -ge $((before + 2)) ] && kill -0 $first; }
within 600 "going on without the worker" more
say "the connection is lost, $(finished) of 24 trials done"
lab in client pkill -KILL -f 'ssh .*sweep.py' || fail "no connection to lose"
wait $first && fail "ray submit ended well without its connection"
kept=$(finished)
[ "$kept" -lt 24 ] || fail "the sweep was over before it was interrupted"
quiet() { ! head pgrep -f sweep.py; }
within 300 "the driver's end" quiet

say "the same command again, $kept of 24 trials done"
submit >"$LAB/second.log" 2>&1 || fail "the second ray submit"
[ "$(finished)" = 24 ] || fail "$(finished) of 24 trials are complete"
tail -n 5 "$LAB/second.log"
say "one machine, one trial after the other, gives the same rows"
RAY_AUTH_MODE=disabled "$PYTHON" sweep.py "${space[@]}" --storage "$LAB/serial" --address local --serial >"$LAB/serial.log" 2>&1 ||
  fail "the serial run"
PYTHONPATH=. "$PYTHON" tests/cluster/same_rows.py "$LAB/serial/bip_unstructured" "$sweep" || fail "the rows differ"

say "ray down"
client ray down -y --log-style=record --log-color=false cluster.yaml >"$LAB/down.log" 2>&1 || fail "ray down"
stopped() { ! head pgrep gcs_server; }
within 180 "the head's end" stopped
say "PASSED"
