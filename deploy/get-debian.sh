#!/bin/sh
# Install from Debian's packages what the tests run and is missing, where root or sudo allows: Mosquitto, its clients and
# npm, and in CI or where MEGACE2_CLUSTERS is set NATS and RabbitMQ, which brings Erlang (some 100 MB). Nothing of them
# runs or will run by itself; never fails, the tests tell.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need mosquitto mosquitto
need mosquitto_sub mosquitto-clients
need npm npm
if [ -n "${CI:-}${MEGACE2_CLUSTERS:-}" ]; then
    need nats-server nats-server
    need rabbitmq-server rabbitmq-server
fi
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "not installed:$missing; their tests will be skipped (sudo apt install$missing)" >&2
    exit 0
fi
echo "installing$missing"
$as_root apt-get update -qq >/dev/null 2>&1

# Debian starts what it installs, unless this file says no, and again at each boot, unless that is disabled.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
for package in $missing; do
    new="$(apt-get -s install --no-install-recommends "$package" 2>/dev/null | sed -n 's/^Inst \([^ ]*\) (.*/\1/p')"
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
        echo "$package could not be installed: its tests will be skipped" >&2
    # shellcheck disable=SC2086  # the names of packages
    for unit in $(dpkg -L $new 2>/dev/null | sed -n 's#^.*/lib/systemd/system/\([^/@]*\)$#\1#p'); do
        $as_root systemctl disable "$unit" >/dev/null 2>&1
        [ -d /run/systemd/system ] && $as_root systemctl stop "$unit" >/dev/null 2>&1
    done
done
exit 0
