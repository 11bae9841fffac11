#!/usr/bin/env bash
# Trains on GPUs of a Slurm cluster. Run it on a login node; --root lies on the shared file system.
#   launch/slurm.sh run --name=NAME --root=DIR --nodes=2 --gpus=8 -- --config=FILE --workdir=DIR
# Flags: name, root, nodes, gpus (of a node), partition, account, time (4:00:00), python (python3.12), data (folder), out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

name='' root='' nodes=1 gpus='' partition='' account='' time=4:00:00 python=python3.12 data='' out=''
verbs "create install stage run resume fetch delete" "$@"
read_flags "name root nodes gpus partition account time python data out" "${@:2}"

# a folder on the shared file system, and a look at the partition
create() {
  client sinfo "run this on a login node"
  need root
  go sinfo --noheader ${partition:+--partition="$partition"}
  go mkdir -p "$root"
}

install() {
  need root
  pack "$root/supcon_jax.tar.gz"
  go mkdir -p "$root/supcon_jax"
  go tar -xzf "$root/supcon_jax.tar.gz" -C "$root/supcon_jax"
  go "$python" -m venv "$root/supcon_jax/.venv"
  go "$root/supcon_jax/.venv/bin/pip" install -q -c "$root/supcon_jax/constraints.txt" -e "$root/supcon_jax[gpu]"
}

stage() {
  client rsync "install it with the system's packages"
  need root data
  go rsync -a "$data/" "$root/data/"
}

# one task a GPU, which is how jax counts devices under Slurm. TERM comes two minutes before the end: the step is
# finished and saved. Jobs of one name wait for each other, so that two never write to one folder.
run() {
  client sbatch "run this on a login node"
  need name root gpus
  local line
  line=$(training .venv/bin/python --coordinator=auto)
  go sbatch --job-name="$name" --dependency=singleton --chdir="$root/supcon_jax" --nodes="$nodes" --ntasks-per-node="$gpus" \
    --gpus-per-node="$gpus" --time="$time" ${partition:+--partition="$partition"} ${account:+--account="$account"} \
    --requeue --signal=TERM@120 --open-mode=append --output="$root/run.log" --wrap="srun --kill-on-bad-exit=1 $line"
}

# a preempted job is queued again by Slurm; after a time limit the same job is asked for once more
resume() {
  run
}

fetch() {
  client rsync "install it with the system's packages"
  need root out
  local from
  from=$(workdir_of)
  [[ $from != *://* ]] || fail "--workdir=$from: not on that machine; fetch it with the client of its store"
  if [[ $from != /* ]]; then from=$root/supcon_jax/$from; fi
  go mkdir -p "$out"
  go rsync -a "$from/" "$out/"
  go rsync -a "$root/run.log" "$out/"
}

delete() {
  client scancel "run this on a login node"
  need name
  go scancel --name="$name"
}

"$verb"
