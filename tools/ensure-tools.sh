#!/bin/sh
# Install what is missing with apt-get: RabbitMQ for the tests, which start nodes of their own, so that no service is
# started; with INTEROP_REQUIRED=1 also what the clients in other languages need.
set -eu

packages=
need() { # command, package
    command -v "$1" >/dev/null || packages="$packages $2"
}
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || need rabbitmq-server rabbitmq-server
case "${INTEROP_REQUIRED:-0}" in
'' | 0) ;;
*)
    need javac default-jdk-headless
    need mvn maven
    need node nodejs
    need npm npm
    need go golang-go
    need amqp-publish amqp-tools
    need curl curl
    ;;
esac
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "The tests need$packages, and there is no apt-get here to install it with: please install it yourself." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "The tests need$packages: please run 'apt-get install$packages' as root." >&2
        exit 1
    fi
    exec sudo --preserve-env=http_proxy,https_proxy,no_proxy,INTEROP_REQUIRED "$0"
fi

echo "Installing with apt-get, as root, without starting a service:$packages"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" # "action forbidden by policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update || echo "apt-get update failed: trying with the package lists that are here." >&2
# shellcheck disable=SC2086 # a list
apt-get -qq install --yes --no-install-recommends $packages >/dev/null
