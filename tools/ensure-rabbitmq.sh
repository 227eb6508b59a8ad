#!/bin/sh
# Install RabbitMQ with apt-get if it is missing. The tests start nodes of their own: no service is started.
set -eu

if [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "The tests need RabbitMQ, and there is no apt-get here to install it with: please install it yourself." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "The tests need RabbitMQ: please run 'apt-get install rabbitmq-server' as root." >&2
        exit 1
    fi
    exec sudo --preserve-env=http_proxy,https_proxy,no_proxy "$0"
fi

echo "RabbitMQ is missing: installing rabbitmq-server with apt-get, as root, without starting its service."
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" # "action forbidden by policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update || echo "apt-get update failed: trying with the package lists that are here." >&2
apt-get -qq install --yes --no-install-recommends rabbitmq-server >/dev/null
