#!/bin/sh
# First process of the guest once it has the host's root file system: brings up the network and the
# RDMA device with the host's own tools, runs the command and reports how it ended.
#
# Standard output is the serial console, which the host keeps as the guest's log. The command's output
# goes through a virtio port (no terminal in between changes it), and so do two marks that the host
# tells from output by their nonce: "ready" and "exit CODE".
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
run=/run/rfaas

die() {
    echo "rfaas guest: $*"
    sleep 1 # the console is written by a worker thread of the kernel
    echo o >/proc/sysrq-trigger
    sleep 60
}

must() {
    "$@" || die "failed: $*"
}

must hostname rfaas-roce
printf '%s\n' '127.0.0.1 localhost' '::1 localhost' '10.0.0.1 rfaas-roce' >$run/hosts
must mount --bind $run/hosts /etc/hosts

must ip link set lo up
# Addresses are usable at once and are only ours: no duplicate detection, no router advertisements.
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra
must ip link set eth0 up
must ip addr add 10.0.0.1/24 dev eth0
must ip addr add fd00:10::1/64 dev eth0 nodad

must rdma link add rxe0 type rxe netdev eth0
state=/sys/class/infiniband/rxe0/ports/1/state
tries=50
until grep -q ACTIVE $state; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || die "rxe0 is not active: $(cat $state)"
    sleep 0.1
done
for device in uverbs0 rdma_cm; do
    [ -c /dev/infiniband/$device ] || die "no /dev/infiniband/$device"
done

# rxe does its work in tasklets. Without this they wait a scheduler tick behind a program that spins.
for comm in /proc/[0-9]*/comm; do
    read -r name <"$comm" || continue
    case $name in
    ksoftirqd/*) pid=${comm#/proc/} && must chrt --fifo --pid 50 "${pid%/comm}" ;;
    esac
done

must ulimit -l unlimited
must ulimit -n 65536
must ulimit -c 0

set -- /dev/vport*
[ -c "$1" ] || die 'no virtio port'
exec 3>"$1"
mark() {
    printf '\036%s %s\n' "$rfaas_nonce" "$*" >&3
}

# A pipe between the command and the port, because only one process may open the port and programs do
# open /dev/stdout and /dev/stderr.
must mkfifo $run/stdout
{
    cat $run/stdout >&3
    : >$run/drained
} &

mark ready
sh $run/job.sh </dev/null >$run/stdout 2>&1 3>&-
code=$?

# Whatever the command left running may still hold the pipe: do not wait for it for ever.
tries=40
until [ -e $run/drained ] || [ $tries -eq 0 ]; do
    tries=$((tries - 1))
    sleep 0.05
done
sync
mark exit $code
# The host ends the machine when it has read the mark: powering off here could lose what is still queued.
exec sleep infinity
