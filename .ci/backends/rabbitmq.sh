#!/usr/bin/env bash
# Install Debian's RabbitMQ for `make engines`, and stop the service that the package starts: each test
# starts a server of its own on the loopback.
set -euo pipefail
if [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
  apt-get update -qq
  # the service's own Erlang must not listen on other addresses for the moment that it runs either
  ERL_EPMD_ADDRESS=127.0.0.1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null
fi
service rabbitmq-server stop >/dev/null 2>&1 || true
