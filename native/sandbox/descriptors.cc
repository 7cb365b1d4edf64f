#include "sandbox/descriptors.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <vector>

namespace rfaas::sandbox {

int close_descriptors(int first) {
#ifdef SYS_close_range
    if (::syscall(SYS_close_range, first, UINT_MAX, 0) == 0) return 0;
#endif
    // For kernels before 5.9. The list is complete before anything happens to it: closing while
    // reading would skip some.
    DIR* folder = ::opendir("/proc/self/fd");
    if (folder == nullptr) return -errno;
    std::vector<int> found;
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] == '.') continue;
        const int descriptor = std::atoi(entry->d_name);
        if (descriptor >= first && descriptor != ::dirfd(folder)) found.push_back(descriptor);
    }
    ::closedir(folder);
    for (const int descriptor : found) ::close(descriptor);
    return 0;
}

}  // namespace rfaas::sandbox
