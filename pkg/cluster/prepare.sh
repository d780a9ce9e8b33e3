# Prepares what the containerd of new nodes begins with, in a container of the node image; see Store.
#
#   $1                   the store's folder
#   $2                   the key to prepare it under
#   /images/*.tar        docker archives to add to what the node image holds
#
# Prints why the store cannot be used, or nothing.
set -eu

# containerd lays its containers' file systems over these files, which not every file system of a host lets it do.
kind=$(stat -f -c %T "$1")
case $kind in
ext2/ext3 | xfs | btrfs | tmpfs) ;;
*)
  echo "its folder is on a file system of type $kind"
  exit 0
  ;;
esac

new=$1/prepared/.new-$2
mkdir -p "$1/prepared"
rm -rf "$new"
cp -a /var/lib/containerd "$new"

cat >/tmp/prepare.toml <<CONF
version = 3
root = "$new"
state = "/run/prepare"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "/run/prepare.sock"
CONF
containerd --config /tmp/prepare.toml >&2 &
containerd=$!
ctr() { command ctr --address /run/prepare.sock --namespace k8s.io "$@" >&2; }
until [ -S /run/prepare.sock ] && ctr version; do
  kill -0 $containerd
  sleep 0.1
done
for archive in /images/*.tar; do
  [ -e "$archive" ] || continue
  ctr images import --local --discard-unpacked-layers --snapshotter overlayfs "$archive"
done
# Discarded layers are gone once containerd has collected its garbage, which this waits for.
ctr content prune references
kill $containerd
wait $containerd || true

# Each containerd has an id and leftovers of its own.
rm -rf "$new/io.containerd.grpc.v1.introspection/uuid" "$new/tmpmounts"
du -sb "$new" | cut -f 1 >"$new/.size"
# What has its name is whole, also after the power was cut.
sync -f "$new"
mv "$new" "$1/prepared/$2"
