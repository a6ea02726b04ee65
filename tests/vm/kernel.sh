# Sourced by tests/vm/run: the kernel and the guest's first file system. Packages are unpacked into a cache and not
# installed, as nothing on the host needs them.

# unpack FOLDER PACKAGE: the files of a Debian package.
unpack() {
    local folder=$1 package=$2
    [[ ! -e $folder/.complete ]] || return 0
    rm -rf "$folder"
    mkdir -p "$folder/download"
    # Root's apt gives downloads to another user, who may not see this folder.
    (cd "$folder/download" && apt-get -qq -o APT::Sandbox::User=root download "$package") >&2 ||
        (cd "$folder/download" && apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            apt-get -qq -o APT::Sandbox::User=root download "$package") >&2 || return 1
    dpkg-deb -x "$folder"/download/*.deb "$folder" || return 1
    rm -rf "$folder/download"
    touch "$folder/.complete"
}

# pack_initramfs CACHE: busybox and init.sh, packed anew when one of them changed.
pack_initramfs() {
    local cache=$1 busybox=$1/busybox/bin/busybox tree
    [[ ! $cache/initramfs.gz -nt $here/init.sh || ! $cache/initramfs.gz -nt $cache/busybox/.complete ]] || return 0
    tree=$(mktemp -d "$cache/initramfs.XXXXXX")
    mkdir "$tree"/{bin,proc,sys,dev,host,control,new}
    cp "$busybox" "$tree/bin/"
    "$busybox" --list | grep -vx busybox | while read -r name; do ln -s busybox "$tree/bin/$name"; done
    install -m 0755 "$here/init.sh" "$tree/init"
    (cd "$tree" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$cache/initramfs.gz.new"
    mv "$cache/initramfs.gz.new" "$cache/initramfs.gz"
    rm -rf "$tree"
}

# install_missing COMMAND=PACKAGE...: installs what the host needs for making the root.
install_missing() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((!${#missing[@]})) || DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y \
        --no-install-recommends "${missing[@]}" >&2
}

# fill_systemd TREE: a small Debian in which vm-command.service runs guest.sh at the end of the boot.
fill_systemd() {
    local tree=$1 mirror unit
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' | head -n 1)
    debootstrap --variant=minbase --components=main --include=systemd-sysv,dbus,udev,xfsprogs,procps,python3,logrotate,rpm,openssl \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$tree" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
        { tail -n 5 "$cache/debootstrap.log" >&2; return 1; }
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    : >"$tree/etc/fstab"
    echo guest >"$tree/etc/hostname"
    echo uninitialized >"$tree/etc/machine-id"
    unit=$tree/etc/systemd/system
    cat >"$unit/vm-command.service" <<'UNIT'
[Unit]
Description=The command of the virtual machine
After=multi-user.target
[Service]
ExecStart=/bin/bash /control/guest.sh
KillMode=process
UNIT
    mkdir -p "$unit/multi-user.target.wants"
    ln -s ../vm-command.service "$unit/multi-user.target.wants/"
    # What would wait, or work on the disk, for nothing.
    for name in getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer xfs_scrub_all.timer systemd-random-seed.service systemd-firstboot.service \
        systemd-networkd-wait-online.service; do
        ln -sf /dev/null "$unit/$name"
    done
}

# prepare_systemd CACHE: CACHE/systemd.ext4, made anew when this file changed.
prepare_systemd() {
    local cache=$1 tree status=0
    exec 9>"$cache/.lock"
    flock 9
    if [[ ! $cache/systemd.ext4 -nt $here/kernel.sh ]]; then
        install_missing debootstrap=debootstrap mke2fs=e2fsprogs
        tree=$(mktemp -d "$cache/systemd.XXXXXX")
        chmod 755 "$tree"
        fill_systemd "$tree" && rm -f "$cache/systemd.ext4.new" &&
            mke2fs -q -t ext4 -m 0 -d "$tree" "$cache/systemd.ext4.new" 1G >/dev/null &&
            mv "$cache/systemd.ext4.new" "$cache/systemd.ext4" || status=1
        rm -rf "$tree"
    fi
    exec 9>&-
    return "$status"
}

# prepare_kernel CACHE: CACHE/uml/usr/bin/linux.uml and CACHE/initramfs.gz. Two runs at once download once.
prepare_kernel() {
    local cache=$1
    mkdir -p "$cache"
    [[ $cache != *" "* ]] || { echo "the kernel's command line takes no blank, as in $cache" >&2; return 1; }
    exec 9>"$cache/.lock"
    flock 9
    unpack "$cache/uml" user-mode-linux && unpack "$cache/busybox" busybox-static && pack_initramfs "$cache"
    local status=$?
    exec 9>&-
    return "$status"
}
