// The lines with which an executor manager configures a worker.
#include <unistd.h>

#include "executor/config.h"
#include "fuzz/script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    int ends[2] = {};
    FUZZ_CHECK(bytes < 65536 && ::pipe(ends) == 0);
    FUZZ_CHECK(::write(ends[1], data, bytes) == static_cast<ssize_t>(bytes));
    ::close(ends[1]);
    rfaas::executor::Config config;
    std::string rest, reason;
    const bool read = rfaas::executor::read_config(ends[0], &config, &rest, &reason);
    ::close(ends[0]);
    FUZZ_CHECK(read == reason.empty());
    // Orders may follow the configuration, and none is lost.
    FUZZ_CHECK(!read || std::string(reinterpret_cast<const char*>(data), bytes).ends_with(rest));
    // What was wrong is repeated to people, and not at any length.
    FUZZ_CHECK(reason.size() < 300);
    return 0;
}
