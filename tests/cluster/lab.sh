#!/usr/bin/env bash
# Three machines on one: lab.sh up | down | in NODE COMMAND...   (as root; needs iproute2, openssh-server)
# client 10.77.0.1, head 10.77.0.2 and worker 10.77.0.3 have their own network, processes, mounts, host name, home,
# /tmp and sshd; the rest of the disk is the same, as if one image had been put on all of them.
# LAB: the folder that holds the homes. PYTHON: the interpreter whose bin folder is on everybody's PATH.
set -euo pipefail
LAB=${LAB:?a folder for the homes of the three}
PYTHON=${PYTHON:?the interpreter of the environment that has the project\'s dependencies}
NODES=(client head worker)
declare -A ADDRESS=([client]=10.77.0.1 [head]=10.77.0.2 [worker]=10.77.0.3)
space() { echo "sweep-lab-$1"; }

machine() { # NODE: becomes the first process of a machine; runs inside its namespaces
  local node=$1 own=$LAB/$1 prefix
  hostname "$node"
  ip link set lo up
  for prefix in $PREFIXES; do # an environment under the old home stays where it was
    case $prefix in
    "$HOME"/*) mkdir -p "$own/home/${prefix#"$HOME"/}" && mount --bind "$prefix" "$own/home/${prefix#"$HOME"/}" ;;
    esac
  done
  mkdir -p "$own/tmp" && chmod 1777 "$own/tmp"
  mount --rbind "$own/home" "$HOME"
  mkdir -p /tmp/ray && mount --bind "$own/tmp" /tmp/ray
  mount -t tmpfs -o size=2g tmpfs /dev/shm
  mkdir -p /run/sshd
  touch "$own/ready"
  [ "$node" = client ] && exec sleep infinity
  exec /usr/sbin/sshd -D -e -f "$own/sshd_config" 2>"$own/sshd.log"
}

up() {
  local node own key=$LAB/client/home/.ssh/ray_cluster
  for node in "${NODES[@]}"; do
    own=$LAB/$node
    mkdir -p "$own/home/.ssh" && chmod 700 "$own/home" "$own/home/.ssh" && rm -f "$own/ready"
    printf 'export PATH=%s:$PATH\n' "$(dirname "$PYTHON")" >"$own/home/.bashrc"
    ssh-keygen -q -t ed25519 -N '' -f "$own/hostkey"
  done
  ssh-keygen -q -t ed25519 -N '' -f "$key"
  ip netns add "$(space client)"
  ip -n "$(space client)" link add br0 type bridge
  ip -n "$(space client)" addr add "${ADDRESS[client]}/24" dev br0
  ip -n "$(space client)" link set br0 up
  for node in head worker; do
    own=$LAB/$node
    install -m 600 "$key.pub" "$own/home/.ssh/authorized_keys"
    printf '%s\n' "ListenAddress ${ADDRESS[$node]}" "HostKey $own/hostkey" 'PasswordAuthentication no' 'UsePAM no' \
      'AuthorizedKeysFile .ssh/authorized_keys' 'StrictModes no' "PidFile $own/sshd.pid" >"$own/sshd_config"
    ip netns add "$(space $node)"
    ip -n "$(space client)" link add "to-$node" type veth peer name eth0 netns "$(space $node)"
    ip -n "$(space client)" link set "to-$node" master br0 up
    ip -n "$(space $node)" addr add "${ADDRESS[$node]}/24" dev eth0
    ip -n "$(space $node)" link set eth0 up
  done
  for node in "${NODES[@]}"; do
    setsid ip netns exec "$(space "$node")" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
      env -i LAB="$LAB" PYTHON="$PYTHON" HOME="$HOME" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      PREFIXES="$("$PYTHON" -c 'import sys; print(sys.prefix, sys.base_prefix)')" \
      bash "$0" machine "$node" >"$LAB/$node/log" 2>&1 </dev/null &
    echo $! >"$LAB/$node/pid"
    for _ in $(seq 100); do [ -f "$LAB/$node/ready" ] && break; sleep 0.1; done
    [ -f "$LAB/$node/ready" ] || { cat "$LAB/$node/log" >&2; exit 1; }
  done
}

first() { pgrep -P "$(cat "$LAB/$1/pid")" | head -1; } # a machine's first process, as seen from outside

inside() { # NODE COMMAND...
  local process
  process=$(first "$1")
  shift
  nsenter --target "$process" --mount --net --uts --ipc --pid env -i HOME="$HOME" TERM=xterm LANG=C.UTF-8 \
    PATH="$(dirname "$PYTHON"):/usr/sbin:/usr/bin:/sbin:/bin" "$@"
}

down() {
  local node process
  for node in "${NODES[@]}"; do
    if [ -f "$LAB/$node/pid" ]; then
      process=$(first "$node") && kill -9 "$process" || true # and with it everything that runs on the machine
      rm -f "$LAB/$node/pid"
    fi
    ip netns del "$(space "$node")" 2>/dev/null || true
  done
}

command=$1
shift
case $command in
up | down) $command ;;
in) inside "$@" ;;
machine) machine "$1" ;;
*) echo "lab.sh up | down | in NODE COMMAND..." >&2; exit 2 ;;
esac
