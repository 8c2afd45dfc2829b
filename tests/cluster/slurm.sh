#!/usr/bin/env bash
# deploy/slurm/sweep.sbatch on two nodes: two of the machines in namespaces (lab.sh), with stand-ins for srun and scontrol. A job
# that is cancelled commits; one whose time is nearly over commits and is queued again; a node that is lost does not end it.
#   PYTHON=.venv/bin/python tests/cluster/slurm.sh
source "$(dirname "$0")/steps.sh"
job=77 project=$LAB/shared/project sweep=$LAB/shared/results/bip_unstructured
words=(--space bip_unstructured --profile demo --samples 2)
space=("${words[@]}")

start() { # as SLURM starts the batch script, on the first node
  on head env PATH="$project/tests/cluster/slurm_stand_in:$PATH" LAB="$LAB" SLURM_JOB_ID=$job SLURM_JOB_NUM_NODES=2 SLURM_CPUS_PER_TASK=1 \
    SWEEP_STORAGE="$LAB/shared/results" SWEEP_PRIVATE="$LAB/shared/private" OMP_NUM_THREADS=1 \
    bash -c "cd $project && exec bash deploy/slurm/sweep.sbatch ${words[*]@Q}" >>"$LAB/job.log" 2>&1 &
  batch=$!
}
during() { # SECONDS WHAT COMMAND...: as within, while the batch script runs
  within "$1" "$2" eval "! kill -0 $batch 2>/dev/null || ${*:3}"
  kill -0 $batch 2>/dev/null || fail "the job ended before $2"
}
ended() { # WANTED: waits for the batch script
  local code=0
  wait $batch || code=$?
  [ $code = "$1" ] || fail "the batch script ended with $code, not $1"
}
tell() { on head pkill "-$1" -f "$2"; } # SIGNAL PATTERN
nothing_left() {
  local node
  for node in head worker; do
    ! on $node pgrep -f 'raylet|gcs_server|sweep\.py|symmetric' || return 1
    ! on $node test -e /tmp/sweep-$job || return 1
  done
}
clean() { within 60 "the end of all processes and folders of the job" nothing_left; }
batch_script='^bash deploy/slurm/sweep.sbatch'

mkdir "$project"
cp -r sweep.py sweeper trials deploy tests "$project"
cp ~/.ssh/ray_cluster "$LAB/shared/key"

# fault: job-cancelled
say "a job that scancel ends"
start
during 300 "a trial on the worker" on_worker
[ "$(stat -c %a "$LAB/shared/private/$job/token")" = 600 ] || fail "others can read the token"
before=$(finished)
tell USR2 slurm_stand_in/srun
ended 130
[ ! -e "$LAB/shared/requeued" ] || fail "a job that was cancelled is queued again"
[ "$(finished)" -lt 12 ] || fail "the sweep was over before"
clean
! grep -rqs '"status": "running"' "$sweep/trials" || fail "a trial has not committed its end"

# fault: job-time
say "the same job, whose time is nearly over, $(finished) of 12 trials done"
start
more() { [ "$(finished)" -gt "$before" ] && on head test -e "$LAB/shared/private/$job/driver"; }
during 300 "going on" more
tell USR1 "$batch_script"
ended 137 # as scontrol ends it
[ "$(cat "$LAB/shared/requeued")" = $job ] || fail "it is not queued again"
[ "$(finished)" -lt 12 ] || fail "the sweep was over before"
! grep -rqs '"status": "running"' "$sweep/trials" || fail "a trial has not committed its end"
clean

# fault: job-node
say "the job that was queued again, $(finished) of 12 trials done"
start
during 300 "a trial on the worker" on worker pgrep -f ^ray::TrialWorker
on worker pkill -KILL raylet || fail "no raylet"
ended 0
[ "$(finished)" = 12 ] || fail "$(finished) of 12 trials are complete"
[ ! -e "$LAB/shared/private/$job" ] || fail "the job's token is still there"
clean

say "a command that is wrong"
words+=(--samples 0)
start
ended 2
[ "$(wc -l <"$LAB/shared/requeued")" = 1 ] || fail "a wrong command is queued again"
clean
same_as_serial
say "PASSED"
