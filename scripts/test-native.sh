#!/usr/bin/env bash
# Builds the C++ side with sanitizers and runs its tests: AddressSanitizer with
# UndefinedBehaviorSanitizer, then ThreadSanitizer. JOBS: compilers at once (default 2).
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=${JOBS:-2}
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)

for preset in "${@:-asan tsan}"; do presets+=($preset); done
summary=()
for preset in "${presets[@]}"; do
    began=$SECONDS
    # The folder remembers its generator: another one would be refused.
    [ -f "build-$preset/CMakeCache.txt" ] && args=() || args=("${generator[@]}")
    cmake --preset "$preset" "${args[@]}" >"/tmp/rfaas-cmake-$$.log" 2>&1 ||
        { cat "/tmp/rfaas-cmake-$$.log"; rm -f "/tmp/rfaas-cmake-$$.log"; exit 1; }
    rm -f "/tmp/rfaas-cmake-$$.log"
    cmake --build --preset "$preset" --parallel "$jobs"
    built=$((SECONDS - began))
    ctest --preset "$preset" --no-tests=error
    summary+=("native $preset: passed (build ${built} s, tests $((SECONDS - began - built)) s)")
done
printf '%s\n' "${summary[@]}"
