#!/usr/bin/env bash
# Kubernetes calls this in a pod before it ends it, within terminationGracePeriodSeconds (lifecycle.preStop). Ray would kill the
# driver without a notice. So SIGTERM goes to the driver, which lets all its trials commit, or, on a pod without the driver, to its
# trials. It returns when they have ended, or after $1 seconds (75).
patience_s=${1:-75} proc=${PROC:-/proc}

told() { # prints the processes of this pod that must commit: the driver, or else the workers that run trials
  local folder line drivers=() trials=()
  for folder in "$proc"/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline") || continue
    # The driver is Python. `sh -c` and `ray job submit` have the same words on their lines.
    if [[ $line =~ ^[^\ ]*python[0-9.]*\ (-[^m][^\ ]*\ )*([^\ ]*/)?(sweep\.py|sparsity-sweep|-m\ sweeper)\  ]]; then
      drivers+=("${folder##*/}")
    elif [[ $line == ray::TrialWorker* ]]; then
      trials+=("${folder##*/}")
    fi
  done
  [ ${#drivers[@]} -gt 0 ] && echo "${drivers[@]}" || echo "${trials[@]}"
}

read -ra processes <<<"$(told)"
[ ${#processes[@]} -gt 0 ] || exit 0
kill -TERM "${processes[@]}" 2>/dev/null
end=$((SECONDS + patience_s))
while [ $SECONDS -lt $end ] && kill -0 "${processes[@]}" 2>/dev/null; do sleep 0.5; done
exit 0
