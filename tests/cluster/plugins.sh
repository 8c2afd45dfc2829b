#!/usr/bin/env bash
# Users' code on a cluster: it lies on the head alone, and the worker runs it, by ray submit and by ray job submit. A module
# that only the driver has is refused, with the name of a machine whose workers lack it. Three machines in namespaces, as in run.sh.
#   PYTHON=.venv/bin/python tests/cluster/plugins.sh
source "$(dirname "$0")/steps.sh"
space=(--space "$HOME/own/own.yaml")
sweep=$LAB/shared/own

write_own() { # on the head: the sample plug-in, a space that lists it, and a module that is only there
  on head mkdir -p "$HOME/own" "$HOME/here/only_here"
  tar -C tests/plugin -c sample_plugin | on head tar -C "$HOME/own" -x
  on head tee "$HOME/own/own.yaml" >/dev/null <<'YAML'
plugins: [./sample_plugin]
trial:
  method: sample_plugin.snip:Snip
  model: sample_plugin.networks:SampleNet
  dataset: sample_plugin.shapes:shapes
  train: {epochs: 1000}  # long enough for workers to start on the other machine
grid:
  density: [0.5, 0.2]
  seed: [0, 1, 2, 3, 4, 5]
YAML
  sed 's|./sample_plugin|./sample_plugin, only_here|' <(on head cat "$HOME/own/own.yaml") | on head tee "$HOME/own/module.yaml" >/dev/null
  on head tee "$HOME/here/only_here/__init__.py" >/dev/null <<<'HERE = 1'
}

begin
write_own
on worker test -e "$HOME/own" && fail "the worker sees the head's folder"

say "ray submit"
submit >"$LAB/first.log" 2>&1 || fail "ray submit"
[ "$(finished)" = 12 ] || fail "$(finished) of 12 trials are complete"
on_worker >/dev/null || fail "no trial ran on the worker"
grep -l plugin_sources "$sweep"/trials/*/state.json >/dev/null || fail "no trial says which code it ran"

say "ray job submit"
job="ray job submit --working-dir . --runtime-env-json '{\"env_vars\": {\"PYTHONPATH\": \"$HOME/sweep\"}}'"
on_head "cd ~/own && $job -- python -m sweeper --space own.yaml --name job --storage $shared" >"$LAB/job.log" 2>&1 ||
  fail "ray job submit"
sweep=$LAB/shared/job
[ "$(finished)" = 12 ] || fail "$(finished) of 12 trials of the job are complete"
on_worker >/dev/null || fail "no trial of the job ran on the worker"

say "a module that only the driver has"
on_head "cd ~/sweep && PYTHONPATH=~/here python sweep.py --space ~/own/module.yaml --address auto 2>&1" \
  >"$LAB/refused.log" && fail "it was not refused"
grep -Eq "error: on (head|worker) \(10.77.0.[23]\), the plug-in only_here" "$LAB/refused.log" || fail "no machine is named"
end
