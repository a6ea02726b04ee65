#!/bin/sh
# The guest's first program, from the initramfs, where only busybox is. It makes a root in memory and hands over to
# guest.sh or to systemd. The thin root borrows the host's /usr read-only, so that programs built and installed on the
# host run as they are; the other one is a layer in memory above a small Debian.
export PATH=/bin

fail() { echo "init: $*" | tee /control/failure >&2; poweroff -f; sleep 5; }

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
control=$(sed -n 's/.*control=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t hostfs none /control -o "rw,$control" || fail "cannot mount $control"
mount -t hostfs none /host -o ro,/ || fail "cannot mount the host's root"
image=$(sed -n 's/.*image=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t tmpfs -o size=75%,mode=755 root /new

if [ "$image" ]; then
    mkdir /new/changes /new/work /image /layered
    insmod /control/overlay.ko && mount -t ext4 -o ro,noload "$image" /image &&
        mount -t overlay -o lowerdir=/image,upperdir=/new/changes,workdir=/new/work layered /layered ||
        fail "cannot mount the systemd root"
    cd /layered
    mkdir -p host control
    start=/lib/systemd/systemd
else
    cd /new
    mkdir -p usr etc var/log var/lib tmp var/tmp run/lock root home mnt opt srv host control proc sys dev
    chmod 1777 tmp var/tmp
    chmod 700 root
    ln -s ../run var/run
    mount -o bind /host/usr usr || fail "cannot show the host's /usr"
    for name in bin sbin lib lib32 lib64; do
        [ ! -L "/host/$name" ] || ln -s "$(readlink "/host/$name")" "$name"
    done
    for name in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives hosts protocols services \
        localtime os-release debian_version; do
        [ ! -e "/host/etc/$name" ] || cp -a "/host/etc/$name" etc/
    done
    ln -s /proc/self/mounts etc/mtab
    echo guest >etc/hostname
    hostname guest
    start="/bin/bash /control/guest.sh"
fi
: >etc/projects
: >etc/projid
for name in proc sys dev host control; do mount --move "/$name" "$PWD/$name"; done
exec switch_root "$PWD" $start
fail "cannot switch to the new root"
