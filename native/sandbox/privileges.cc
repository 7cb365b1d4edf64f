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

// To the limit that is asked for, or to the hard one that only its holder's betters can raise.
bool limit(decltype(RLIMIT_CORE) resource, uint64_t value) {
    rlimit current = {};
    if (::getrlimit(resource, &current) != 0) return false;
    const rlimit wanted = {value, value};
    if (::setrlimit(resource, &wanted) == 0) return true;
    if (errno != EPERM || value <= current.rlim_max) return false;
    current.rlim_cur = current.rlim_max;
    return ::setrlimit(resource, &current) == 0;
}

}  // namespace

bool set_limits(const Config& config, std::string* reason) {
    // Not the address space: a JavaScript engine reserves far more of it than it ever uses, and the
    // regions of a client are mapped, too. RLIMIT_DATA counts private pages that can be written.
    const struct {
        decltype(RLIMIT_CORE) resource;
        uint64_t value;
        const char* name;
    } limits[] = {{RLIMIT_DATA, config.data_bytes, "RLIMIT_DATA"},
                  {RLIMIT_FSIZE, config.file_bytes, "RLIMIT_FSIZE"},
                  {RLIMIT_MEMLOCK, config.locked_bytes, "RLIMIT_MEMLOCK"},
                  {RLIMIT_NPROC, config.processes, "RLIMIT_NPROC"},
                  {RLIMIT_NOFILE, config.files, "RLIMIT_NOFILE"}};
    for (const auto& [resource, value, name] : limits) {
        if (value != 0 && !limit(resource, value)) {
            return failed(reason, std::string("cannot set ") + name);
        }
    }
    const rlimit none = {0, 0};
    return ::setrlimit(RLIMIT_CORE, &none) == 0 || failed(reason, "cannot set RLIMIT_CORE");
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
