#pragma once

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// Refuses system calls that functions do not need and attacks do: EPERM for most, for the rest of
// the process's life. Needs no_new_privs. False: `reason` says what failed.
[[nodiscard]] bool filter_system_calls(const Config& config, std::string* reason);

}  // namespace rfaas::sandbox
