// Landlock is the second line behind the mount namespace, and the first one where that is missing.
// The constants are the kernel's (linux/landlock.h), which are younger than many systems' headers.
#include "sandbox/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/unique_fd.h"

namespace rfaas::sandbox {

namespace {

constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;  // everywhere the same
constexpr uint32_t kAskVersion = 1;
constexpr int kPathBeneath = 1;

constexpr uint64_t kExecute = 1 << 0, kWriteFile = 1 << 1, kReadFile = 1 << 2, kReadDir = 1 << 3;
constexpr uint64_t kFirstRights = (1 << 13) - 1;  // of version 1: removing and making, beside these
constexpr uint64_t kRefer = 1 << 13;              // version 2
constexpr uint64_t kTruncate = 1 << 14;           // version 3
constexpr uint64_t kDeviceControl = 1 << 15;      // version 5
constexpr uint64_t kTcp = 3;                      // version 4: bind and connect
constexpr uint64_t kScopes = 3;                   // version 6: abstract sockets and signals

struct Ruleset {
    uint64_t files, tcp, scopes;
};

struct __attribute__((packed)) BeneathRule {
    uint64_t allowed;
    int32_t parent;
};

class Rules {
  public:
    explicit Rules(const Config& config) {
        const long version = ::syscall(kCreateRuleset, nullptr, 0, kAskVersion);
        if (version < 1) return;
        Ruleset ruleset = {kFirstRights, 0, 0};
        if (version >= 2) ruleset.files |= kRefer;
        if (version >= 3) ruleset.files |= kTruncate;
        if (version >= 5) ruleset.files |= kDeviceControl;
        if (version >= 4 && !config.network) ruleset.tcp = kTcp;
        if (version >= 6) ruleset.scopes = kScopes;
        all_ = ruleset.files;
        // Older kernels want to hear nothing of what they do not know.
        const size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
        fd_.reset(static_cast<int>(::syscall(kCreateRuleset, &ruleset, size, 0)));
    }

    [[nodiscard]] bool valid() const { return fd_.valid(); }
    [[nodiscard]] uint64_t all() const { return all_; }

    [[nodiscard]] bool allow(const std::string& path, uint64_t rights) {
        const UniqueFd target(::open(path.c_str(), O_PATH | O_CLOEXEC));
        struct stat status = {};
        if (!target.valid() || ::fstat(target.get(), &status) != 0) return false;
        if (!S_ISDIR(status.st_mode)) {
            rights &= kExecute | kWriteFile | kReadFile | kTruncate | kDeviceControl;
        }
        const BeneathRule rule = {rights & all_, target.get()};
        return ::syscall(kAddRule, fd_.get(), kPathBeneath, &rule, 0) == 0;
    }

    [[nodiscard]] bool enforce() { return ::syscall(kRestrictSelf, fd_.get(), 0) == 0; }

  private:
    UniqueFd fd_;
    uint64_t all_ = 0;
};

}  // namespace

bool restrict_files(const Config& config, std::string* reason) {
    const auto failed = [reason](const std::string& what) {
        *reason = what + ": " + std::strerror(errno);
        return false;
    };
    Rules rules(config);
    if (!rules.valid()) return failed("this kernel has no Landlock");
    constexpr uint64_t kReading = kExecute | kReadFile | kReadDir;
    constexpr uint64_t kUsing = kReadFile | kReadDir | kWriteFile | kTruncate | kDeviceControl;
    if (config.has(kMount)) {
        // The root holds nothing but what was meant for us.
        if (!rules.allow("/", kReading) || !rules.allow("/tmp", rules.all())) return failed("/");
    } else {
        for (const std::string& path : config.read) {
            if (!rules.allow(path, kReading)) return failed(path);
        }
        for (const std::string& path : config.write) {
            if (!rules.allow(path, rules.all())) return failed(path);
        }
        if (!rules.allow("/proc", kReading)) return failed("/proc");
    }
    // Names of threads are written there, and nothing that belongs to others.
    if (config.has(kPid) && !rules.allow("/proc", kReadFile | kReadDir | kWriteFile)) {
        return failed("/proc");
    }
    for (const char* name : {"null", "zero", "full", "random", "urandom"}) {
        const std::string path = std::string("/dev/") + name;
        if (!rules.allow(path, kUsing)) return failed(path);
    }
    for (const std::string& path : config.device) {
        if (!rules.allow(path, kUsing)) return failed(path);
    }
    return rules.enforce() || failed("cannot enforce the rules of Landlock");
}

}  // namespace rfaas::sandbox
