#pragma once

#include <sys/types.h>

namespace rfaas {

// Pins the calling thread, and what it starts later, to one core. 0 or a negative errno.
[[nodiscard]] int pin_to_core(int core);

// All threads of a process, and what they start later. 0 or a negative errno.
[[nodiscard]] int pin_process_to_core(pid_t pid, int core);

}  // namespace rfaas
