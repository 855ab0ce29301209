#!/bin/sh
# image.sh OUT: makes a Debian image with nearfield of this checkout for local virtual machines, as
# root: OUT/disk.qcow2, OUT/vmlinuz, OUT/initrd. Needs debootstrap, qemu-img, mkfs.ext4 and a
# python3 of Debian's version (3.11). What is there already is kept: OUT/root, OUT/wheels.
#
# With it `vm_scripts/up` installs nothing: packages, environment, compiled files are in the image.
# Kernels are compiled for any processor of the kind, since an emulated one takes minutes for it.
set -eu

release=${NEARFIELD_RELEASE:-bookworm}
mirror=${NEARFIELD_MIRROR:-http://deb.debian.org/debian}
size=${NEARFIELD_IMAGE_SIZE:-6G}
source=$(cd "$(dirname "$0")/../.." && pwd)
out=$(realpath -m "${1:?expected a folder for the image}")
root=$out/root
venv=/opt/nearfield/venv
packages="linux-image-cloud-amd64 cloud-init openssh-server systemd-sysv sudo rsync dbus udev kmod
  nfs-kernel-server nfs-common python3 python3-venv iproute2 ifupdown isc-dhcp-client netbase
  ca-certificates libpam-systemd"

in_root() {
  # kernels and bytecode as the machine will want them
  chroot "$root" env -i HOME=/root PATH="$venv/bin:/usr/sbin:/usr/bin:/sbin:/bin" LANG=C.UTF-8 \
    NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=/var/cache/nearfield "$@"
}

system() {
  if [ ! -e "$out/packages.done" ]; then
    debootstrap --variant=minbase "$release" "$root" "$mirror"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts in here
    chmod +x "$root/usr/sbin/policy-rc.d"
    in_root apt-get -qq update
    # shellcheck disable=SC2086  # a list
    in_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $packages
    rm "$root/usr/sbin/policy-rc.d"
    touch "$out/packages.done"
  fi
  echo "/dev/vda / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
  # what our user-data needs, and no more: an emulated processor takes seconds for each
  cat >"$root/etc/cloud/cloud.cfg.d/90-nearfield.cfg" <<'EOT'
datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519]
cloud_init_modules: [write_files, resizefs, set_hostname, update_etc_hosts, users_groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user, keys_to_console]
EOT
  printf 'NUMBA_CPU_NAME=generic\nNUMBA_CACHE_DIR=/var/cache/nearfield\n' >"$root/etc/environment"
  in_root systemctl -q disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer fstrim.timer || true
}

environment() {
  if [ ! -d "$out/wheels" ]; then
    python3 -m pip wheel --quiet -c "$source/constraints.txt" -w "$out/.wheels" \
      "${source}[machines]"
    mv "$out/.wheels" "$out/wheels"
  fi
  rm -rf "$root$venv" "$root/wheels"
  cp -r "$out/wheels" "$root/wheels"
  in_root python3 -m venv "$venv"
  in_root sh -c 'pip install --quiet --no-index --find-links /wheels "nearfield[machines]"'
  rm -rf "$root/wheels"
  # whole seconds: a file system made from a folder keeps no others, and caches go by them
  find "$root$venv" -exec touch -h -d @1750000000 {} +
  in_root python -m compileall -q "$venv/lib" >/dev/null || true
}

# run small jobs once, so that every kernel that they need is compiled
kernels() {
  for place in proc sys dev/shm; do mkdir -p "$root/$place"; done
  mount -t proc proc "$root/proc"
  mount -t tmpfs tmpfs "$root/dev/shm"
  trap 'umount "$root/proc" "$root/dev/shm"' EXIT
  rm -rf "$root/var/cache/nearfield"
  # shellcheck disable=SC2016  # the shell inside expands it
  in_root sh -ec 'mkdir -p /tmp/warm && cd /tmp/warm
python -c "import numpy as np; r = np.random.default_rng(0); \
[np.save(f\"{n}.npy\", r.standard_normal((n, d)).astype(np.float32)) for n, d in ((500, 8), (20000, 4))]"
for job in "500 exact" "20000 selfjoin"; do
  set -- $job
  nearfield ingest $1.npy --out v$1
  nearfield build v$1 --out r$1 -k 5 --method $2 --workers 1
  nearfield verify r$1 --recall 0.01
done
rm -rf /tmp/warm'
  chmod -R a+rwX "$root/var/cache/nearfield"
  umount "$root/proc" "$root/dev/shm"
  trap - EXIT
}

disk() {
  cp -L "$root/vmlinuz" "$out/vmlinuz"
  cp -L "$root/initrd.img" "$out/initrd"
  # each machine has keys and an identity of its own
  rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root"/var/cache/apt/archives/*.deb
  : >"$root/etc/machine-id"
  rm -f "$out/disk.raw"
  mkfs.ext4 -q -d "$root" "$out/disk.raw" "$size"
  qemu-img convert -O qcow2 "$out/disk.raw" "$out/disk.qcow2"
  rm -f "$out/disk.raw"
}

mkdir -p "$out"
for step in ${NEARFIELD_IMAGE_STEPS:-system environment kernels disk}; do
  echo "image: $step" >&2
  "$step"
done
