#!/bin/sh
# Install Mosquitto, its clients and npm from Debian's packages, those of them that are missing, where root or sudo
# allows; never fails, the tests tell.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
command -v mosquitto >/dev/null || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v npm >/dev/null || missing="$missing npm"
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
for package in $missing; do
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
        echo "$package could not be installed: its tests will be skipped" >&2
done
exit 0
