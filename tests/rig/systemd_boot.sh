#!/bin/sh
# The first process of a throwaway systemd's namespaces: builds a root that is a copy-on-write view
# of this machine's, moves into it, and becomes systemd. Called by tests/rig/systemd.py within
#   unshare -m -p -f -i -u --cgroup
# Nothing here touches the real tree: every write goes to tmpfs, /proc/sys and /sys are read-only.
#
#   [HIERARCHY=hybrid] systemd_boot.sh probe|boot FOLDER [SOURCE:TARGET ...]
#
# FOLDER: an empty directory. SOURCE:TARGET: bound read-only into the new root. `probe` stops before
# systemd: it tells whether this kernel, in this container, lets us do all of it.
set -eu
what=$1 folder=$2
shift 2

step="making mounts private"
trap '[ $? = 0 ] || echo "$step is not possible here" >&2' EXIT
mount --make-rprivate /

step="mounting a tmpfs"
mount -t tmpfs -o mode=755,size=256m tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
root=$folder/root

step="mounting an overlay over /"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"

step="mounting proc, sysfs and cgroup2"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
cgroup=$root/sys/fs/cgroup
if [ "${HIERARCHY:-unified}" = hybrid ]; then
    # Read-only: systemd is not to mount those controllers too for which it has no group of its own.
    mount -t tmpfs -o mode=755 tmpfs "$cgroup"
    mkdir "$cgroup/unified" "$cgroup/systemd" "$cgroup/memory"
    mount -t cgroup2 cgroup2 "$cgroup/unified"
    mount -t cgroup -o none,name=systemd systemd "$cgroup/systemd"
    mount -t cgroup -o memory memory "$cgroup/memory"
    mount -o remount,ro "$cgroup"
else
    mount -t cgroup2 cgroup2 "$cgroup"
fi

step="mounting /run, /tmp and /dev"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done

# Its own configuration and units, and none of this machine's.
mount -t tmpfs -o mode=755 tmpfs "$root/etc/systemd"
mkdir "$root/etc/systemd/system"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\nRateLimitBurst=0\n' \
    >"$root/etc/systemd/journald.conf"
for target in sysinit basic shutdown multi-user network-online; do
    printf '[Unit]\nDescription=%s (empty)\nDefaultDependencies=no\n' "$target" \
        >"$root/etc/systemd/system/$target.target"
done
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    [ "$what" = probe ] || cp "/lib/systemd/system/$unit" "$root/etc/systemd/system/"
done

step="binding directories into the new root"
for pair in "$@"; do
    target=$root${pair#*:}
    mkdir -p "$target"
    mount --rbind "${pair%%:*}" "$target"
    mount -o remount,bind,ro "$target"
done

step="pivoting into the new root"
mkdir "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old 2>/dev/null || true
# As systemd does on a real boot: LoadCredential= mounts in a child, and it has to arrive here. The
# peers are this namespace's own; nothing travels back to the machine.
mount --make-rshared /

[ "$what" = boot ] || exit 0
step="starting systemd"
# `container=`: load no modules, set no sysctls, leave the console alone.
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_LOG_TARGET=journal SYSTEMD_COLORS=0 \
    /lib/systemd/systemd --unit=multi-user.target
