// The lines with which an executor manager configures the launcher of a confined worker.
#include "sandbox/config.h"

#include "fuzz/script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    rfaas::sandbox::Config config;
    std::string reason;
    const std::string text(reinterpret_cast<const char*>(data), bytes);
    const bool read = rfaas::sandbox::parse_config(text, &config, &reason);
    FUZZ_CHECK(read == reason.empty());
    rfaas::sandbox::Assignment assignment;
    std::string why;
    FUZZ_CHECK(rfaas::sandbox::parse_assignment(text, &assignment, &why) == why.empty());
    // What a path may be is the launcher's safety: it opens them with the manager's rights.
    for (const auto* paths : {&config.read, &config.write, &config.device, &assignment.package}) {
        for (const std::string& path : *paths) FUZZ_CHECK(!path.empty() && path[0] == '/');
    }
    return 0;
}
