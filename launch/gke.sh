#!/usr/bin/env bash
# Trains on Google Kubernetes Engine through xpk, on TPU slices or GPU nodes.
#   launch/gke.sh create --cluster=NAME --zone=ZONE --type=v5litepod-256 [--slices=1] [--spot=yes]
# Flags: cluster, zone, project, name (of the run), type (v5litepod-256, h100-80gb-8), slices, nodes (of GPUs; in place
# of slices), spot (yes), image (registry/name:tag), extra (tpu, gpu), data (local folder), bucket (gs://NAME),
# restarts, out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/flags.sh"

cluster='' zone='' project='' name='' type='' slices=1 nodes='' spot='' image='' extra=tpu data='' bucket='' restarts=10 out=''
verbs "create install stage run resume fetch delete" "$@"
read_flags "cluster zone project name type slices nodes spot image extra data bucket restarts out" "${@:2}"
where=(--cluster="$cluster" --zone="$zone" ${project:+--project="$project"})
kind=(--device-type="$type")
if [[ $nodes ]]; then kind+=(--num-nodes="$nodes"); else kind+=(--num-slices="$slices"); fi

xpk_client() {
  client xpk "pip install xpk"
  need cluster zone
}

create() {
  xpk_client
  need type
  go xpk cluster create "${where[@]}" "${kind[@]}" ${spot:+--spot} --enable-gcsfuse-csi-driver --enable-workload-identity
}

# the image holds the committed tree and its packages; pods pull it
install() {
  client docker "https://docs.docker.com/engine/install"
  need image
  pack /tmp/supcon_jax.tar.gz
  go rm -rf /tmp/supcon_jax_image
  go mkdir -p /tmp/supcon_jax_image
  go tar -xzf /tmp/supcon_jax.tar.gz -C /tmp/supcon_jax_image
  go docker build --tag="$image" --build-arg=EXTRA="$extra" --file=/tmp/supcon_jax_image/launch/Dockerfile /tmp/supcon_jax_image
  go docker push "$image"
}

# every pod sees the bucket as /data
stage() {
  xpk_client
  client gcloud "https://cloud.google.com/sdk/docs/install"
  need data bucket
  local only=${bucket#gs://}
  [[ $only != */* ]] || fail "--bucket=$bucket: name a whole bucket, gs://NAME; pods mount it as /data"
  go gcloud storage rsync --recursive "$data" "$bucket"
  go xpk storage attach supcon-jax-data "${where[@]}" --type=gcsfuse --bucket="$only" --mount-point=/data --readonly=true \
    --auto-mount=true --size=1
}

run() {
  xpk_client
  need name type image
  local line
  line=$(training python --coordinator=auto)
  go xpk workload create --workload="$name" "${where[@]}" "${kind[@]}" --docker-image="$image" \
    --max-restarts="$restarts" --command="$line"
}

# pods that were taken away start again by themselves, --restarts times; this is for after that
resume() {
  xpk_client
  need name type image
  training python >/dev/null
  go xpk workload delete --workload="$name" "${where[@]}" --force
  run
}

fetch() {
  client gcloud "https://cloud.google.com/sdk/docs/install"
  need out
  local from
  from=$(workdir_of)
  [[ $from == gs://* ]] || fail "--workdir=$from: what a pod writes elsewhere than to gs:// is gone with it"
  go mkdir -p "$out"
  go gcloud storage rsync --recursive "$from" "$out"
}

# the run, or, without --name, the whole cluster
delete() {
  xpk_client
  if [[ $name ]]; then
    go xpk workload delete --workload="$name" "${where[@]}" --force
  else
    go xpk cluster delete "${where[@]}" --force
  fi
}

"$verb"
