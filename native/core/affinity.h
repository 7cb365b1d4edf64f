#pragma once

namespace rfaas {

// Pins the calling thread, and what it starts later, to one core. 0 or a negative errno.
[[nodiscard]] int pin_to_core(int core);

// Pins every thread of the process to one core: a runtime has threads of its own by now.
[[nodiscard]] int pin_process_to_core(int core);

}  // namespace rfaas
