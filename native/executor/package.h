// A native function package: a shared library, loaded and listed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rfaas/function.h"

namespace rfaas::executor {

// The signature of the original rFaaS.
using LegacyFunction = uint32_t (*)(void* input, uint32_t input_bytes, void* output);

struct Function {
    std::string name;
    rfaas_function call = nullptr;  // one of the two is set
    LegacyFunction legacy = nullptr;
};

// Loads `path` for the rest of the process's life. The functions are in the order of the package's
// table or, for a library without one, of their names. False: `reason` says why.
[[nodiscard]] bool load_package(const std::string& path, std::vector<Function>* functions,
                                std::string* reason);

}  // namespace rfaas::executor
