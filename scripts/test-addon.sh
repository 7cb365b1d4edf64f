#!/usr/bin/env bash
# Runs the suites that drive the addon against a build of it with AddressSanitizer and
# UndefinedBehaviorSanitizer. Arguments are other test files than the usual.
set -euo pipefail
cd "$(dirname "$0")/.."

generator=()
[ -f build-asan/CMakeCache.txt ] || ! command -v ninja >/dev/null || generator=(-G Ninja)
cmake --preset asan "${generator[@]}" >/dev/null
cmake --build --preset asan --parallel "${JOBS:-2}" --target rfaas_addon

suites=("$@")
[ $# -gt 0 ] || suites=(test/conformance test/integration/calls.test.ts test/integration/worker.test.ts)

# Node itself is not instrumented, so the runtime has to be there before the addon is. It frees
# little at its end: leaks are what the native tests look for.
export RFAAS_BUILD=build-asan
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
runtime="$(${CXX:-c++} -print-file-name=libasan.so) $(${CXX:-c++} -print-file-name=libubsan.so)"
exec env LD_PRELOAD="$runtime" node node_modules/vitest/vitest.mjs run "${suites[@]}"
