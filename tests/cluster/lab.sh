#!/usr/bin/env bash
# Three simulated machines on one host, as root, with openssh-server and iproute2:
#   lab.sh COMMAND...           runs COMMAND on the client (10.77.0.1), in a copy of the project at ~/project, beside a
#                               head (10.77.0.2) and a worker (10.77.0.3)
#   lab.sh on NODE COMMAND...   inside the lab: runs COMMAND on the head's or the worker's console
#   lab.sh check                exits with 1 and a reason if this machine cannot do it
# Each has its own network, processes, mounts, host name, home, /tmp and /dev/shm; the rest of the disk is shared, as
# if all had the same image. Everything is in namespaces and in memory: however COMMAND ends, also by SIGKILL, no
# process, interface, mount or file is left, and no process outside can be reached from inside.
# PYTHON: the interpreter whose bin folder is on every machine's PATH. In COMMAND, LAB is a folder that all three share.
set -euo pipefail
PYTHON=${PYTHON:?the interpreter of the environment that has what the project depends on}
LAB=/run/lab
HIDDEN=("$HOME" /tmp)
declare -A ADDRESS=([head]=10.77.0.2 [worker]=10.77.0.3)
NAMESPACES=(--mount --net --pid --ipc --uts --fork --kill-child --mount-proc)
export PATH=$PATH:/usr/sbin:/sbin

check() {
  local tool
  [ "$(id -u)" = 0 ] || { echo "it needs root"; exit 1; }
  for tool in sshd ssh-keygen rsync ip nsenter unshare setpriv; do
    [ -n "$(command -v $tool)" ] || { echo "it needs $tool (openssh-server, rsync, iproute2, util-linux)"; exit 1; }
  done
  unshare "${NAMESPACES[@]}" bash -ec 'mount -t tmpfs tmpfs /run; ip link add br0 type bridge
    ip link add one type veth peer name other' >/dev/null 2>&1 || { echo "namespaces are not allowed here"; exit 1; }
}

own() { # FOLDER...: mounts empty folders in memory; an interpreter below one of them keeps its path
  local folder prefix kept=()
  for prefix in $PREFIXES; do
    for folder in "$@"; do
      if [[ $prefix == "$folder"/* ]]; then
        kept+=("$prefix")
        mkdir -p "$LAB/kept$prefix" && mountpoint -q "$LAB/kept$prefix" || mount --bind "$prefix" "$LAB/kept$prefix"
      fi
    done
  done
  for folder in "$@"; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
  for prefix in "${kept[@]}"; do mkdir -p "$prefix" && mount --bind "$LAB/kept$prefix" "$prefix"; done
  chmod 700 "$HOME"
  printf 'export PATH=%s:$PATH\n' "$(dirname "$PYTHON")" >"$HOME/.bashrc"
}

machine() { # NODE: becomes the first process of a machine
  hostname "$1"
  own "${HIDDEN[@]}" /dev/shm
  mkdir -p -m 700 "$HOME/.ssh" /run/sshd
  install -m 600 "$LAB/key.pub" "$HOME/.ssh/authorized_keys"
  ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/host"
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
  ip link set lo up
  ip addr add "${ADDRESS[$1]}/24" dev eth0
  ip link set eth0 up
  touch "$LAB/$1.ready"
  exec "$(command -v sshd)" -D -e -f /dev/null -h "$HOME/.ssh/host" -o ListenAddress="${ADDRESS[$1]}" -o UsePAM=no \
    -o PasswordAuthentication=no -o StrictModes=no -o PidFile=none 2>"$LAB/$1-sshd.log"
}

client() { # COMMAND...: makes the client of the namespaces it runs in, starts the others, and runs it
  local node
  hostname client
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$LAB/shared" "$LAB/project"
  git -c safe.directory='*' ls-files -z --cached --others --exclude-standard | grep -zv '^results/' |
    xargs -0 cp --parents -t "$LAB/project"
  own "${HIDDEN[@]}" /dev/shm
  mv "$LAB/project" "$HOME/project"
  cd "$HOME/project"
  mkdir -p -m 700 "$HOME/.ssh"
  ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/ray_cluster"
  cp "$HOME/.ssh/ray_cluster.pub" "$LAB/key.pub"
  ip link set lo up
  ip link add br0 type bridge
  ip addr add 10.77.0.1/24 dev br0
  ip link set br0 up
  for node in head worker; do
    unshare "${NAMESPACES[@]}" env -i "${KEEP[@]}" bash tests/cluster/lab.sh machine $node </dev/null >"$LAB/$node.log" 2>&1 &
    echo $! >"$LAB/$node.pid"
    for _ in $(seq 100); do first $node && break; sleep 0.1; done >/dev/null
    ip link add "to-$node" type veth peer name eth0 netns "$(first $node)"
    ip link set "to-$node" master br0 up
    for _ in $(seq 100); do [ -f "$LAB/$node.ready" ] && break; sleep 0.1; done
    [ -f "$LAB/$node.ready" ] || { cat "$LAB/$node.log" >&2; exit 1; }
  done
  "$@"
}

first() { pgrep -P "$(cat "$LAB/$1.pid")"; } # a machine's first process, as the client sees it

on() { # NODE COMMAND...
  local process
  process=$(first "$1")
  shift
  nsenter --target "$process" --mount --net --uts --ipc --pid env -i "${KEEP[@]}" "$@"
}

KEEP=(HOME="$HOME" PATH="$(dirname "$PYTHON"):/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" TERM=xterm LANG=C.UTF-8
  PYTHON="$PYTHON" LAB="$LAB" PREFIXES="${PREFIXES:-$("$PYTHON" -c 'import sys; print(sys.prefix, sys.base_prefix)')}")
case ${1:?lab.sh COMMAND..., or lab.sh on NODE COMMAND...} in
check) check ;;
on | machine | client) "$@" ;;
*)
  cd "$(dirname "$0")/../.."
  setpriv --pdeathsig KILL unshare "${NAMESPACES[@]}" env -i "${KEEP[@]}" bash tests/cluster/lab.sh client "$@" &
  trap 'kill -KILL $!; exit 143' TERM INT HUP # unshare itself ignores these signals
  wait $!
  ;;
esac
