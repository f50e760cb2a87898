#!/bin/sh
# Install Mosquitto from Debian's packages where it is missing and root or sudo allows; never fails, the tests tell.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
command -v mosquitto >/dev/null && exit 0
command -v apt-get >/dev/null || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "mosquitto is not installed: its tests will be skipped (sudo apt install mosquitto)" >&2
    exit 0
fi
echo "installing mosquitto"
{ $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq mosquitto; } \
    >/dev/null 2>&1 || echo "mosquitto could not be installed: its tests will be skipped" >&2
exit 0
