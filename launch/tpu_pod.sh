#!/usr/bin/env bash
# Creates a Cloud TPU slice, installs the package on it and trains. Needs gcloud, logged in, with a project set.
#
#   export ZONE=us-west4-a SHARE=10.0.0.2:/anchor      # SHARE: an NFS export (Filestore) for data and checkpoints
#   launch/tpu_pod.sh create ana v5litepod-16           # rent the slice (SPOT=1: cheaper, preemptible)
#   launch/tpu_pod.sh setup ana                         # install this commit and its pinned packages
#   launch/tpu_pod.sh train ana --config=configs/studio_finetune.py:body --workdir=/mnt/anchor/ana ...
#   launch/tpu_pod.sh delete ana                        # stop paying
#
# A training that fails starts again, at most RESTARTS times (3), from its last checkpoint; so does `train` on a new slice
# of another size. When a host fails or hangs, the others end within a minute and say which.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,12s/^# \{0,1\}//p' launch/tpu_pod.sh
  exit 2
}

[[ $# -ge 2 ]] || usage
action=$1 name=$2
shift 2
zone=${ZONE:?"set ZONE, for example us-west4-a"}

tpu() { # VERB [ARGUMENTS...]
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$name" --zone="$zone" "$@"
}

on_every_host() { # COMMAND
  tpu ssh --worker=all --command="$1"
}

case $action in
  create)
    type=${1:?"name a slice, for example v5litepod-16"}
    case $type in # the system image for the chip
      v5lite*) image=v2-alpha-tpuv5-lite ;;
      v5p*) image=v2-alpha-tpuv5 ;;
      v6e*) image=v2-alpha-tpuv6e ;;
      *) image=tpu-ubuntu2204-base ;;
    esac
    tpu create --accelerator-type="$type" --version="${IMAGE:-$image}" ${SPOT:+--spot}
    ;;
  setup)
    share=${SHARE:?"set SHARE to an NFS export that the hosts reach, for example 10.0.0.2:/anchor"}
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$name:anchor_jax.tar.gz" --zone="$zone" --worker=all
    # The hosts' own Python is too old; uv installs one. Idempotent.
    on_every_host "set -e
      mkdir -p anchor_jax && tar -xzf anchor_jax.tar.gz -C anchor_jax && cd anchor_jax
      python3 -m pip install --quiet --user uv && export PATH=\"\$HOME/.local/bin:\$PATH\"
      [ -x .venv/bin/python ] || uv venv --quiet --python 3.12 .venv
      uv pip install --quiet --python .venv/bin/python -r requirements/tpu.txt
      uv pip install --quiet --python .venv/bin/python --no-deps -e .
      sudo apt-get -qq install -y nfs-common
      sudo mkdir -p /mnt/anchor
      mountpoint -q /mnt/anchor || sudo mount -t nfs $share /mnt/anchor"
    on_every_host "cd anchor_jax && .venv/bin/python -c 'import jax; jax.distributed.initialize(); print(jax.devices())'"
    ;;
  train)
    printf -v arguments ' %q' "$@"
    left=${RESTARTS:-3}
    trap 'exit 130' INT # Ctrl-C is no failure
    until on_every_host "cd anchor_jax && .venv/bin/python -m anchor_jax.train$arguments"; do
      ((left-- > 0)) || exit 1
      echo "training failed: it starts again ($left restarts left)"
    done
    ;;
  delete)
    tpu delete --quiet
    ;;
  *) usage ;;
esac
