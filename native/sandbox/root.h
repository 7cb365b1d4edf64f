#pragma once

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// Replaces the root of this mount namespace by one of its own: what `config` names, at the paths
// where it is on the host, and private /tmp, /dev and /proc. False: `reason` says what failed.
[[nodiscard]] bool build_root(const Config& config, std::string* reason);

}  // namespace rfaas::sandbox
