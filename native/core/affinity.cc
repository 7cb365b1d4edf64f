#include "core/affinity.h"

#include <dirent.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace rfaas {

namespace {

int pin_thread(pid_t thread, int core) {
    if (core < 0 || core >= CPU_SETSIZE) return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return ::sched_setaffinity(thread, sizeof set, &set) == 0 ? 0 : -errno;
}

bool is_pinned(pid_t thread, int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    return ::sched_getaffinity(thread, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 &&
           CPU_ISSET(core, &set);
}

}  // namespace

int pin_to_core(int core) {
    return pin_thread(0, core);
}

int pin_process_to_core(pid_t pid, int core) {
    const std::string path = "/proc/" + std::to_string(pid) + "/task";
    // Threads inherit it: once a look finds all of them pinned, there will be no other ones.
    for (bool settled = false; !settled;) {
        settled = true;
        DIR* folder = ::opendir(path.c_str());
        if (folder == nullptr) return -errno;
        while (const dirent* entry = ::readdir(folder)) {
            const auto thread = static_cast<pid_t>(std::atoi(entry->d_name));
            if (thread == 0 || is_pinned(thread, core)) continue;
            const int rc = pin_thread(thread, core);
            if (rc < 0 && rc != -ESRCH) {
                ::closedir(folder);
                return rc;
            }
            settled = false;
        }
        ::closedir(folder);
    }
    return 0;
}

}  // namespace rfaas
