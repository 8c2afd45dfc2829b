# Functions shared by the cluster tests, which source this file. It enters the lab (lab.sh) or prints why it cannot.
# The rest of the test runs there, in a copy of the project, with LAB set.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
if [ -z "${LAB:-}" ]; then
  "$PYTHON" -c 'import ray' # without the project's dependencies the test fails instead of being skipped
  reason=$(bash tests/cluster/lab.sh check) || { echo "cluster test: SKIPPED: $reason"; exit 0; }
  exec bash tests/cluster/lab.sh bash "tests/cluster/$(basename "$0")"
fi

say() { echo "cluster test: $(date +%T) $*"; }
fail() { trap - ERR; say "FAILED: $*"; tail -n 40 "$LAB"/*.log >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
within() { # SECONDS WHAT COMMAND...: repeats the command until it succeeds
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
shared=$LAB/shared sweep=$LAB/shared/bip_unstructured

begin() { # edits the cluster file as a user would, makes a token, runs ray up
  (umask 077; mkdir ~/.ray; "$PYTHON" -c 'import secrets; print(secrets.token_hex(32))' >~/.ray/auth_token)
  sed -i "s|head_ip: .*|head_ip: 10.77.0.2|; s|worker_ips: .*|worker_ips: [10.77.0.3]|; s|ssh_user: .*|ssh_user: root|;
    s|SWEEP_STORAGE=[^ ]*|SWEEP_STORAGE=$shared|" cluster.yaml
  say "ray up"
  ray up -y "${plain[@]}" cluster.yaml >"$LAB/up.log" 2>&1 || fail "ray up"
  within 600 "the worker's raylet" on worker pgrep raylet
  within 600 "the worker's joining" alive 2
}
alive() { [ "$(on_head ray list nodes --format json | grep -o '"state": "ALIVE"' | wc -l)" = "$1" ]; } # MACHINES
submit() { ray submit "${plain[@]}" cluster.yaml sweep.py "${space[@]}"; }
finished() { { grep -ls '"status": "complete"' "$sweep"/trials/*/state.json || true; } | wc -l; }
on_worker() { grep -ls '"host": "worker"' "$sweep"/trials/*/state.json; }

same_as_serial() { # runs the same trials: a search's choice depends on the order of endings, the results do not
  say "one machine, one trial after the other, gives the same rows"
  mkdir -p "$LAB/serial/bip_unstructured"
  (cd "$sweep" && cp --parents sweep.yaml trials/*/config.json "$LAB/serial/bip_unstructured")
  { serial || serial; } >"$LAB/serial.log" 2>&1 || fail "the serial run" # a busy machine may not start a Ray in its 30 s
  PYTHONPATH=. "$PYTHON" tests/cluster/same_rows.py "$LAB/serial/bip_unstructured" "$sweep" || fail "the rows differ"
}
serial() { RAY_AUTH_MODE=disabled "$PYTHON" sweep.py "${space[@]}" --storage "$LAB/serial" --address local --serial; }

end() {
  say "ray down"
  ray down -y "${plain[@]}" cluster.yaml >"$LAB/down.log" 2>&1 || fail "ray down"
  within 600 "the head's end" stopped
  say "PASSED"
}
stopped() { ! on head pgrep gcs_server; }
