#pragma once

namespace rfaas::sandbox {

// Closes every descriptor from `first` on, whoever opened it. 0 or a negative errno.
[[nodiscard]] int close_descriptors(int first);

}  // namespace rfaas::sandbox
