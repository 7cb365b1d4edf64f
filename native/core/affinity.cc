#include "core/affinity.h"

#include <dirent.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>

namespace rfaas {

namespace {

int pin_thread(pid_t thread, int core) {
    if (core < 0 || core >= CPU_SETSIZE) return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return ::sched_setaffinity(thread, sizeof set, &set) == 0 ? 0 : -errno;
}

}  // namespace

int pin_to_core(int core) {
    return pin_thread(0, core);
}

int pin_process_to_core(int core) {
    // Ours first: threads that are started from now on inherit it.
    int rc = pin_thread(0, core);
    DIR* tasks = ::opendir("/proc/self/task");
    if (tasks == nullptr) return -errno;
    while (rc == 0) {
        const dirent* entry = ::readdir(tasks);
        if (entry == nullptr) break;
        if (entry->d_name[0] == '.') continue;
        rc = pin_thread(static_cast<pid_t>(std::atoi(entry->d_name)), core);
        if (rc == -ESRCH) rc = 0;  // it ended meanwhile
    }
    ::closedir(tasks);
    return rc;
}

}  // namespace rfaas
