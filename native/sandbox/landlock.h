#pragma once

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// Confines the process to the files of `config` and, as far as this kernel's Landlock knows how, to
// no TCP ports, to signals among its own, and to its own abstract sockets. Needs no_new_privs.
// False: `reason` says what failed.
[[nodiscard]] bool restrict_files(const Config& config, std::string* reason);

}  // namespace rfaas::sandbox
