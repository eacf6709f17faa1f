#!/usr/bin/env bash
# Install Debian's Redis for the tests of engines, and stop the service that the package starts:
# each test starts a server of its own on the loopback.
set -euo pipefail
if ! command -v redis-server >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
fi
service redis-server stop >/dev/null 2>&1 || true
