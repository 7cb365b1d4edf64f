#!/usr/bin/env bash
# Everything that must be right before a release, from a fresh clone:
#
#     npm ci && npm run test:all
#
# As root on Debian or Ubuntu it installs the packages of scripts/debian-packages.txt that are
# missing; elsewhere it says which. Stops at the first step that fails.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0

step() {
    local name=$1 began=$SECONDS
    shift
    printf '\n════ %s: %s\n' "$name" "$*"
    if "$@" </dev/null; then
        passed=$((passed + 1))
        printf '════ %s: passed in %d s\n' "$name" $((SECONDS - began))
    else
        local code=$?
        printf '════ %s: FAILED with exit code %d after %d s\n' "$name" "$code" $((SECONDS - began))
        printf '%d passed, 1 failed: %s\n' "$passed" "$name"
        exit 1
    fi
}

has_verbs() { [ "$(node scripts/have-verbs.mjs)" = 1 ]; }

missing_packages() {
    local package
    sed 's/#.*//' scripts/debian-packages.txt | while read -r package; do
        [ -z "$package" ] && continue
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            echo "$package"
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not Debian: install what scripts/debian-packages.txt names by other means."
        return 0
    fi
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    if [ -z "$missing" ]; then
        echo "All of scripts/debian-packages.txt is installed."
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "Missing packages; install them, then run this again:"
        echo "    sudo apt-get install --no-install-recommends $missing"
        return 1
    fi
    echo "Installing: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq &&
        apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

# The headers of the verbs plugin may have arrived after `npm ci` built the rest.
build() {
    npm run build || return
    if has_verbs && [ ! -e build/Release/rfaas_verbs.so ]; then
        node scripts/build-native.mjs --reconfigure
    fi
}

step "system packages" install_packages
step "lint" npm run lint
step "build" build
step "examples" npm run build:examples
step "tests" npm test
step "native tests" npm run test:native
step "addon under sanitizers" npm run test:addon
step "fuzz targets" npm run fuzz -- short
step "failure matrix" npm run test:faults -- --busy
step "Slurm tests" npm run test:slurm
step "Soft-RoCE tests" npm run test:roce
step "demo" npm run demo

echo "$passed passed, 0 failed"
