#!/usr/bin/env bash
# Install Debian's Alertmanager for the tests of alerts, and stop the service that the package
# starts: each test starts one of its own on the loopback.
set -euo pipefail
if ! command -v prometheus-alertmanager >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus-alertmanager >/dev/null
fi
service prometheus-alertmanager stop >/dev/null 2>&1 || true
