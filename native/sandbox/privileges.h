#pragma once

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// All concern the calling process and what it starts. False: `reason` says what failed.

// The limits of `config`, where they are lower than what holds already, and no core dumps.
[[nodiscard]] bool set_limits(const Config& config, std::string* reason);

// Becomes the user and the group `config.uid`, with no other groups, and gives up every capability
// and every way to gain one, as far as the layers of `config` say. `failed` names the layer.
[[nodiscard]] bool drop_privileges(const Config& config, Layer* failed, std::string* reason);

}  // namespace rfaas::sandbox
