#pragma once

namespace rfaas {

// Pins the calling thread, and what it starts later, to one core. 0 or a negative errno.
[[nodiscard]] int pin_to_core(int core);

}  // namespace rfaas
