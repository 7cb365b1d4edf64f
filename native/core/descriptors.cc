#include "core/descriptors.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <vector>

namespace rfaas {

namespace {

// From linux/close_range.h, which older systems do not have.
constexpr unsigned kCloseOnExec = 1U << 2;

int close_range(int first, unsigned flags) {
#ifdef SYS_close_range
    return ::syscall(SYS_close_range, first, UINT_MAX, flags) == 0 ? 0 : -errno;
#else
    (void)first, (void)flags;
    return -ENOSYS;
#endif
}

// For kernels before 5.9, and before 5.11 for the flag. The list is complete before anything
// happens to it: closing while reading would skip some.
template <typename Action>
int for_each(int first, Action action) {
    DIR* folder = ::opendir("/proc/self/fd");
    if (folder == nullptr) return -errno;
    std::vector<int> found;
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] == '.') continue;
        const int descriptor = std::atoi(entry->d_name);
        if (descriptor >= first && descriptor != ::dirfd(folder)) found.push_back(descriptor);
    }
    ::closedir(folder);
    for (const int descriptor : found) action(descriptor);
    return 0;
}

}  // namespace

int close_descriptors_on_exec(int first) {
    if (close_range(first, kCloseOnExec) == 0) return 0;
    return for_each(first, [](int descriptor) {
        const int flags = ::fcntl(descriptor, F_GETFD);
        // Fails only if another thread has closed it meanwhile.
        if (flags >= 0) ::fcntl(descriptor, F_SETFD, flags | FD_CLOEXEC);
    });
}

int close_descriptors(int first) {
    if (close_range(first, 0) == 0) return 0;
    return for_each(first, [](int descriptor) { ::close(descriptor); });
}

}  // namespace rfaas
