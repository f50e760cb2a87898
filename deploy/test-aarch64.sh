#!/bin/sh
# The device agent's tests on aarch64, by emulation on another machine or as they are on an aarch64 one:
#
#   sudo deploy/test-aarch64.sh                        # tests/core and tests/device, what needs no torch
#   sudo deploy/test-aarch64.sh tests/device/media     # some of them; options of pytest, too
#
# Makes a Debian root with its Python and the wheels of megace2-iot[sense] (some 1 GB, once; later runs take it as it is),
# and copies this working tree into it. Needs root, a network, and a kernel with binfmt_misc.
#   ROOT  the folder of that root, default /var/tmp/megace2-aarch64      SUITE  Debian's release, default bookworm
#   CPU   what QEMU plays, default cortex-a72 (Raspberry Pi 4)           MIRROR Debian's mirror, default debootstrap's
set -eu
ROOT=${ROOT:-/var/tmp/megace2-aarch64}
SUITE=${SUITE:-bookworm}
CPU=${CPU:-cortex-a72}
PATH="$PATH:/usr/sbin:/sbin"
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
BINFMT=/proc/sys/fs/binfmt_misc
# Emulation is slower than the limit on CPU time of the one, and needs more address space than the other leaves it.
NOT_EMULATED="tests/device/media/test_generator.py::test_a_clip_is_short_and_quick
tests/device/test_yielding.py::test_the_process_keeps_within_its_bounds"

fail() {
    echo "test-aarch64: $*" >&2
    exit 3
}

step() {
    echo "== $(date +%H:%M:%S) $*"
}

install_tools() {
    missing=""
    command -v debootstrap >/dev/null || missing="debootstrap"
    emulated && ! command -v qemu-aarch64-static >/dev/null && missing="$missing qemu-user-static"
    [ -z "$missing" ] && return
    command -v apt-get >/dev/null || fail "install $missing first: this system has no apt-get to do it with"
    step "installing $missing"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
        >/dev/null || fail "$missing could not be installed: is there a network?"
}

emulated() {
    [ "$(uname -m)" != aarch64 ]
}

# The kernel starts QEMU for aarch64 programs; the package registers that where systemd runs, we do elsewhere.
register_qemu() {
    emulated || return 0
    [ -e $BINFMT/register ] || mount -t binfmt_misc binfmt_misc $BINFMT 2>/dev/null ||
        fail "binfmt_misc cannot be mounted: this kernel lacks it (CONFIG_BINFMT_MISC), or this container may not"
    [ -e $BINFMT/qemu-aarch64 ] && return
    [ -r /usr/lib/binfmt.d/qemu-aarch64.conf ] || fail "qemu-user-static has no /usr/lib/binfmt.d/qemu-aarch64.conf"
    tr -d '\n' </usr/lib/binfmt.d/qemu-aarch64.conf >$BINFMT/register || fail "QEMU could not be registered in $BINFMT"
}

make_root() {
    [ -e "$ROOT/.made" ] && return
    step "making a root of $SUITE in $ROOT (some minutes)"
    mkdir -p "$ROOT"
    { debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$SUITE" "$ROOT" ${MIRROR:-} && chroot "$ROOT" /debootstrap/debootstrap --second-stage; } \
        >"$ROOT.log" 2>&1 || { tail -n 5 "$ROOT.log" >&2; fail "no root was made: is there a network? All of it: $ROOT.log"; }
    touch "$ROOT/.made"
}

# Runs a command in the root, in /src. Its mounts end with it. Not /sys: ONNX Runtime reads of processors there, and
# crashes over those of another architecture.
inside() {
    QEMU_CPU=$CPU unshare --mount sh -c '
        mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" || exit 3
        exec chroot "$0" /usr/bin/env -i PATH=/opt/megace2/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 OMP_NUM_THREADS=1 \
            QEMU_CPU="$QEMU_CPU" PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 \
            sh -c "cd /src && exec \"\$@\"" sh "$@"' "$ROOT" "$@"
}

copy_source() {
    rm -rf "$ROOT/src" && mkdir -p "$ROOT/src"
    tar -C "$SOURCE" --exclude=./.git --exclude=./.venv --exclude=./runs --exclude=./state --exclude='__pycache__' \
        --exclude='./.*_cache' --exclude=./.hypothesis -cf - . | tar -C "$ROOT/src" --no-same-owner -xf -
    cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
    [ -r /etc/ssl/certs/ca-certificates.crt ] && cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
}

install_wheels() {
    step "installing the wheels of megace2-iot[sense]"
    [ -x "$ROOT/opt/megace2/bin/python" ] || inside python3 -m venv /opt/megace2
    inside pip install --quiet --prefer-binary --only-binary=:all: '/src[sense]' pytest pytest-asyncio pytest-timeout \
        hypothesis onnx || fail "the wheels could not be installed: see above"
}

# Test files that need torch, which is not installed here.
with_torch() {
    cd "$SOURCE" && grep -rlE 'import torch|from torch|megace2_iot\.model' tests/core tests/device --include='test_*.py'
}

[ "$(uname -s)" = Linux ] || fail "this needs Linux"
[ "$(id -u)" = 0 ] || fail "this needs root: sudo $0"
install_tools
register_qemu
make_root
copy_source
install_wheels
step "running on $(inside uname -m) with $(inside python3 --version)"
[ $# -gt 0 ] || set -- tests/core tests/device
for file in $(with_torch); do
    set -- "$@" "--ignore=$file"
done
if emulated; then
    for test in $NOT_EMULATED; do
        set -- "$@" "--deselect=$test"
    done
fi
# The profile `ci` of Hypothesis has no deadline for a single example, which emulation would miss now and then.
inside python -m pytest -p no:cacheprovider --hypothesis-profile=ci --timeout=900 --durations=5 -rs "$@"
