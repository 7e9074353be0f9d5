#!/bin/sh
# Installs the Debian packages that the tests need and this machine lacks. As root, on Debian; does
# nothing, at once, when nothing is missing. `make parts`; `make test` calls it where CI=true.
#
# One package a line, and what needs it.
set -eu

packages='
redis-server        a store of the receiving side: tests/integration/receiver
systemd             tests/acceptance/test_units.py, test_service.py, test_service_sandbox.py
procps              kill, in the units
openssl             certificates: tests/rig/names.py
nginx-light         a receiver of its kind: tests/integration/test_exchange_servers.py
chromium            the page of dispatcherd receive: tests/rig/browser.py
faketime            a wall clock that jumps: tests/acceptance/test_clock_jumps.py
tinyproxy-bin       an egress proxy: tests/integration/test_proxy.py
prometheus          promtool, for systemd/alerts.yaml: tests/acceptance/test_site.py
util-linux          unshare, nsenter, setpriv, pivot_root: tests/rig/systemd.py
php-cli             examples/receivers/php, tests/integration/test_verify_samples.py
php-sqlite3         the same
ruby                examples/receivers/ruby, tests/integration/test_verify_samples.py
ruby-webrick        the same
mono-mcs            examples/receivers/csharp
mono-runtime        the same
libmono-system-runtime-serialization4.0-cil  the same
socat               examples/receivers/shell
jq                  the same
'

missing=
for package in $(printf '%s' "$packages" | awk 'NF { print $1 }'); do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
    'install ok installed') ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "parts: needs Debian and root to install:$missing (tests that need them are skipped)" >&2
    exit 1
fi
echo "parts: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # one word each
{ apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
