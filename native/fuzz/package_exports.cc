// The ELF files that tenants upload, as far as we read them ourselves. Loading one runs its code,
// which is what the sandbox is for.
#include "executor/exports.h"
#include "fuzz/script.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    std::set<std::string> names;
    std::string reason;
    const bool read = rfaas::executor::read_exports(data, bytes, &names, &reason);
    FUZZ_CHECK(read == reason.empty());
    FUZZ_CHECK(names.size() <= rfaas::executor::kMaxFunctions + 1);
    for (const std::string& name : names) FUZZ_CHECK(name.size() <= rfaas::executor::kMaxName);
    return 0;
}
