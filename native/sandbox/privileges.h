#pragma once

#include <sys/types.h>

#include <string>

#include "sandbox/config.h"

namespace rfaas::sandbox {

// False: `reason` says what failed.

// For the calling process and what it starts: limits as high as it may set them, and no core dumps.
[[nodiscard]] bool open_limits(std::string* reason);

// For a process of the same user and what it starts: the limits of `assignment`, where they are
// lower than what holds already.
[[nodiscard]] bool set_limits(pid_t pid, const Assignment& assignment, std::string* reason);

// The calling process becomes the user and the group `config.uid`, with no other groups, and gives
// up every capability and every way to gain one, as far as the layers of `config` say. `failed`
// names the layer.
[[nodiscard]] bool drop_privileges(const Config& config, Layer* failed, std::string* reason);

}  // namespace rfaas::sandbox
