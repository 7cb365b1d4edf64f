#pragma once

namespace rfaas {

// Both concern every descriptor from `first` on, whoever opened it. 0 or a negative errno.

// They end with the next exec(). Descriptors that are opened meanwhile by other threads may be
// missed.
[[nodiscard]] int close_descriptors_on_exec(int first);

[[nodiscard]] int close_descriptors(int first);

}  // namespace rfaas
