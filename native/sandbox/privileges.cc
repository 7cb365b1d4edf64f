#include "sandbox/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace rfaas::sandbox {

namespace {

bool failed(std::string* reason, const std::string& what) {
    *reason = what + ": " + std::strerror(errno);
    return false;
}

// To the limit that is asked for, or to the hard one.
bool limit(pid_t pid, decltype(RLIMIT_CORE) resource, uint64_t value) {
    rlimit current = {};
    if (::prlimit(pid, resource, nullptr, &current) != 0) return false;
    const rlim_t most = value < current.rlim_max ? value : current.rlim_max;
    const rlimit wanted = {most, most};
    return ::prlimit(pid, resource, &wanted, nullptr) == 0;
}

}  // namespace

bool open_limits(std::string* reason) {
    const rlimit all = {RLIM_INFINITY, RLIM_INFINITY}, none = {0, 0};
    for (const auto resource : {RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_NPROC}) {
        // Without the right to do it, the hard limit is what there is.
        (void)::setrlimit(resource, &all);
    }
    return ::setrlimit(RLIMIT_CORE, &none) == 0 || failed(reason, "cannot set RLIMIT_CORE");
}

bool set_limits(pid_t pid, const Assignment& assignment, std::string* reason) {
    // Not the address space: a JavaScript engine reserves far more of it than it ever uses, and the
    // regions of a client are mapped, too. RLIMIT_DATA counts private pages that can be written.
    const struct {
        decltype(RLIMIT_CORE) resource;
        uint64_t value;
        const char* name;
    } limits[] = {{RLIMIT_DATA, assignment.data_bytes, "RLIMIT_DATA"},
                  {RLIMIT_FSIZE, assignment.file_bytes, "RLIMIT_FSIZE"},
                  {RLIMIT_MEMLOCK, assignment.locked_bytes, "RLIMIT_MEMLOCK"},
                  {RLIMIT_NPROC, assignment.processes, "RLIMIT_NPROC"},
                  {RLIMIT_NOFILE, assignment.files, "RLIMIT_NOFILE"}};
    for (const auto& [resource, value, name] : limits) {
        if (value != 0 && !limit(pid, resource, value)) {
            if (errno == ESRCH) return true;  // it has ended
            return failed(reason, std::string("cannot set ") + name);
        }
    }
    return true;
}

bool drop_privileges(const Config& config, Layer* failed_layer, std::string* reason) {
    const bool all = config.has(kPrivileges);
    // First what only the powerful may do. It fails for others, which then have nothing that a
    // program could gain from the bounding set once no_new_privs holds.
    for (unsigned long capability = 0; all && capability < 64; ++capability) {
        if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) break;
    }
    *failed_layer = kUser;
    // Without a uid it is the user of the namespace that has been entered already.
    if (config.has(kUser) && config.uid >= 0) {
        const auto id = static_cast<uid_t>(config.uid);
        if (::setgroups(0, nullptr) != 0 || ::setresgid(id, id, id) != 0 ||
            ::setresuid(id, id, id) != 0) {
            return failed(reason, "cannot become user " + std::to_string(id));
        }
    }
    *failed_layer = kPrivileges;
    if (!all) return true;
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    const __user_cap_data_struct none[2] = {};
    if (::syscall(SYS_capset, &header, none) != 0) {
        return failed(reason, "cannot give up capabilities");
    }
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ||
           failed(reason, "cannot set no_new_privs");
}

}  // namespace rfaas::sandbox
