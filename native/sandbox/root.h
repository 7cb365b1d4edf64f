#pragma once

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// Both: false: `reason` says what failed.

// Replaces the root of this mount namespace by one of its own: what `config` names, at the paths
// where it is on the host, and private /tmp, /dev and /proc. The host's root is at kHost until it
// is closed: until then nobody's code may run in here.
[[nodiscard]] bool build_root(const Config& config, std::string* reason);

// Adds the package, gives /tmp its size, and takes the host's root away.
[[nodiscard]] bool close_root(const Assignment& assignment, std::string* reason);

inline constexpr char kHost[] = "/.host";

}  // namespace rfaas::sandbox
