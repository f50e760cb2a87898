#!/bin/sh
# Fetch MQTT.js from npm into .venv/mqttjs, where it is missing and npm is at hand; never fails, the tests tell.
VERSION=5.16.0
FOLDER="${1:-.venv/mqttjs}"
[ -f "$FOLDER/$VERSION" ] && exit 0
if ! command -v npm >/dev/null; then
    echo "npm is not installed: the tests of MQTT.js will be skipped (sudo apt install npm)" >&2
    exit 0
fi
echo "fetching MQTT.js $VERSION"
mkdir -p "$FOLDER"
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$FOLDER" "mqtt@$VERSION" >/dev/null 2>&1 &&
    : > "$FOLDER/$VERSION" || echo "MQTT.js could not be fetched: its tests will be skipped" >&2
exit 0
