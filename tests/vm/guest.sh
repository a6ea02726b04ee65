#!/bin/bash
# The guest's second program, in its final root: devices, disks, what of the host is shown; then the command, whose exit
# code it leaves for the host, and the end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
busybox=/control/busybox terminal=/dev/tty1

end() { sync; echo o >/proc/sysrq-trigger; sleep 10; }
fail() { echo "$*" >/control/failure; end; }

source /control/environment
# What systemd would have done.
if [[ $root == thin ]]; then
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
    mount -t tmpfs -o mode=1777 shm /dev/shm
    ln -sfn /proc/self/fd /dev/fd
    for name in stdin:0 stdout:1 stderr:2; do ln -sfn "fd/${name#*:}" "/dev/${name%:*}"; done
    $busybox ifconfig lo 127.0.0.1 up
fi

for module in /control/module-*.ko; do
    [[ ! -e $module ]] || $busybox insmod "$module" || fail "cannot load $module"
done
while read -r device directory options; do
    [[ $directory != - ]] || continue
    mkdir -p "$directory"
    mkfs.xfs -q -f "$device" || fail "mkfs.xfs $device"
    mount -t xfs -o "$options" "$device" "$directory" || fail "mount -o $options $device $directory"
done </control/disks
while read -r access directory; do
    mkdir -p "$directory"
    if [[ $access == ro ]]; then
        mount --bind "/host$directory" "$directory"
    else
        mount -t hostfs none "$directory" -o "$directory"
    fi || fail "cannot show $directory"
done </control/shows

# The terminal is kept open, as the last close resets it; raw, or it makes \r\n of \n.
exec 7>"$terminal"
stty -F "$terminal" raw -echo
cd /root || fail "no /root"
# Through a pipe, as programs behave otherwise on a terminal.
bash /control/command </dev/null 2>&1 7>&- | cat >&7
status=${PIPESTATUS[0]}
$busybox stty -F "$terminal" drain 2>/dev/null
echo "$status" >/control/status
end
