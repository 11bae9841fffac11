#!/usr/bin/env bash
# Trains on all GPUs of one machine, reached by ssh; one process drives them all.
#   launch/gpu.sh run --host=USER@MACHINE -- --config=FILE --workdir=DIR
# Flags: host, root (supcon_jax, in the home folder there), python (python3.12), data (local folder), out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

host='' root=supcon_jax python=python3.12 data='' out=''
verbs "create install stage run resume fetch delete" "$@"
read_flags "host root python data out" "${@:2}"
client ssh "install openssh"
need host

on_host() {
  go ssh "$host" "$1"
}

# a folder, and a look at the driver
create() {
  on_host "nvidia-smi --list-gpus && mkdir -p $(quote "$root")"
}

install() {
  pack /tmp/supcon_jax.tar.gz
  go scp /tmp/supcon_jax.tar.gz "$host:$root/supcon_jax.tar.gz"
  on_host "set -e; cd $(quote "$root"); tar -xzf supcon_jax.tar.gz; $(quote "$python") -m venv .venv; .venv/bin/pip install -q -c constraints.txt -e '.[gpu]'"
}

stage() {
  client rsync "install it with the system's packages"
  need data
  go rsync -a "$data/" "$host:$root/data/"
}

run() {
  local line
  line=$(training .venv/bin/python)
  on_host "$(detached "$line" "$root")"
}

# the same command goes on from the last checkpoint, and does nothing while it still runs
resume() {
  run
}

fetch() {
  client rsync "install it with the system's packages"
  need out
  local from
  from=$(workdir_of)
  [[ $from != *://* ]] || fail "--workdir=$from: not on that machine; fetch it with the client of its store"
  if [[ $from != /* ]]; then from=$root/$from; fi
  go mkdir -p "$out"
  go rsync -a "$host:$from/" "$out/"
  go rsync -a "$host:$root/run.log" "$out/"
}

# TERM: the step is finished and saved
delete() {
  on_host "cd $(quote "$root") && kill \$(cat run.pid)"
}

"$verb"
