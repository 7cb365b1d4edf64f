#!/bin/sh
# First process of the guest, in the initramfs, under busybox: loads the modules, makes the host's
# root file system the guest's own and hands over to guest.sh in the working tree.
#
# From the kernel command line, which turns unknown NAME=VALUE words into our environment:
#   rfaas_tree    the working tree
#   rfaas_job     the script that runs the command
#   rfaas_output  "yes" if there is a writable share for results
PATH=/bin
export PATH

die() {
    echo "rfaas guest: $*"
    busybox poweroff -f
}

must() {
    busybox "$@" || die "failed: $*"
}

# The names carry the order in which they depend on each other.
for module in /modules/*.ko; do
    must insmod "$module"
done

# A page cache that is never revalidated (cache=loose) is what makes starting Node bearable; the share
# is read-only, and the host's files are not expected to change under a running test.
must mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host

# Taken before the empty /tmp below can hide them.
must mount --bind "/host$rfaas_tree" /tree
must cp "/host$rfaas_job" /job

must mount -t proc proc /host/proc
must mount -t sysfs sysfs /host/sys
must mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
must mount -t devtmpfs devtmpfs /host/dev
must mkdir -p /host/dev/pts /host/dev/shm
must mount -t devpts -o ptmxmode=666 devpts /host/dev/pts
must mount -t tmpfs -o mode=1777 tmpfs /host/dev/shm
must mount -t tmpfs -o mode=1777 tmpfs /host/tmp
must mount -t tmpfs -o mode=1777 tmpfs /host/var/tmp
must mount -t tmpfs -o mode=755 tmpfs /host/run
for pair in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    must ln -s "/proc/self/${pair#*:}" "/host/dev/${pair%:*}"
done

# Tools write beside what they read (vite bundles its config next to it, for one). What they write
# goes to memory and is gone with the guest; the host's tree stays as it is.
must mount -t tmpfs tmpfs /scratch
must mkdir -p /scratch/upper /scratch/work "/host$rfaas_tree"
must mount -t overlay -o lowerdir=/tree,upperdir=/scratch/upper,workdir=/scratch/work \
    overlay "/host$rfaas_tree"

must mkdir -p /host/run/rfaas/output /host/tmp/home
must cp /job /host/run/rfaas/job.sh
if [ "$rfaas_output" = yes ]; then
    must mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 output /host/run/rfaas/output
fi

# Not a chroot: inside one the kernel refuses new user namespaces, which sandboxes are built from.
exec busybox switch_root -c /dev/console /host /bin/sh "$rfaas_tree/test/roce/guest.sh"
