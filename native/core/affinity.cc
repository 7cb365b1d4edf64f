#include "core/affinity.h"

#include <sched.h>

#include <cerrno>

namespace rfaas {

int pin_to_core(int core) {
    if (core < 0 || core >= CPU_SETSIZE) return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return ::sched_setaffinity(0, sizeof set, &set) == 0 ? 0 : -errno;
}

}  // namespace rfaas
