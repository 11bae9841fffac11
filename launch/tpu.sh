#!/usr/bin/env bash
# Trains on a Cloud TPU slice, asked for as a queued resource.
#   launch/tpu.sh create --name=NAME --zone=ZONE --type=v5litepod-256 --version=v2-alpha-tpuv5-lite [--spot=yes] ...
# Flags: name, zone, project, type, version, spot (yes), network, service_account, data (folder or gs://), bucket
# (gs://...: where a local data folder goes first), out (where fetch puts results).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

name='' zone='' project='' type='' version='' spot='' network='' service_account='' data='' bucket='' out=''
verbs "create install stage run resume fetch delete" "$@"
read_flags "name zone project type version spot network service_account data bucket out" "${@:2}"
client gcloud "https://cloud.google.com/sdk/docs/install"
need name zone
where=(--zone="$zone" ${project:+--project="$project"})

on_all() {
  go gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)'
}

create() {
  need type version
  go gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" --accelerator-type="$type" \
    --runtime-version="$version" ${spot:+--spot} ${network:+--network="$network"} \
    ${service_account:+--service-account="$service_account"}
  if [[ $dry_run ]]; then
    go gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)'
    return
  fi
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    case $now in FAILED | SUSPENDED | SUSPENDING) fail "$name is $now: launch/tpu.sh delete, then create again" ;; esac
    sleep 30
  done
}

install() {
  pack /tmp/supcon_jax.tar.gz
  go gcloud compute tpus tpu-vm scp /tmp/supcon_jax.tar.gz "$name:" "${where[@]}" --worker=all
  # the images bring an older Python; uv brings a newer one
  local uv=../.local/bin/uv
  on_all "set -e; mkdir -p supcon_jax; tar -xzf supcon_jax.tar.gz -C supcon_jax; cd supcon_jax; \
python3 -m pip install -q --user uv; $uv venv -q --clear --python 3.12 .venv; \
$uv pip install -q --python .venv/bin/python -c constraints.txt -e '.[tpu,gcs]'"
}

stage() {
  need data
  local from=$data
  if [[ $data != gs://* ]]; then
    need bucket
    from=$bucket
    go gcloud storage rsync --recursive "$data" "$bucket"
  fi
  on_all "mkdir -p data && gcloud storage rsync --recursive $(quote "$from") data"
}

run() {
  local line
  line=$(training .venv/bin/python --coordinator=auto)
  on_all "$(detached "$line" supcon_jax)"
}

# the same command again on the same slice, or on a new one where it was taken away
resume() {
  training .venv/bin/python >/dev/null
  if [[ ! $dry_run && $(state || true) == ACTIVE ]]; then
    run
    return
  fi
  delete
  create
  install
  if [[ $data ]]; then stage; fi
  run
}

fetch() {
  need out
  local from
  from=$(workdir_of)
  go mkdir -p "$out"
  if [[ $from == gs://* ]]; then
    go gcloud storage rsync --recursive "$from" "$out"
  else
    go gcloud compute tpus tpu-vm scp --recurse "$name:supcon_jax/$from" "$out" "${where[@]}" --worker=0
  fi
  go gcloud compute tpus tpu-vm scp "$name:supcon_jax/run.log" "$out" "${where[@]}" --worker=0
}

delete() {
  go gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

"$verb"
