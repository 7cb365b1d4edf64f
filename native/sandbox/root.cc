// The root is a small tmpfs. The host's root stays reachable below it until everything is in place,
// the package included; then it is detached, and what was not bound is not there any more, whoever
// asks.
#include "sandbox/root.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "core/unique_fd.h"

namespace rfaas::sandbox {

namespace {

// A folder that every host has. Its own content comes back with the pivot.
constexpr char kStage[] = "/proc";

bool failed(std::string* reason, const std::string& what) {
    *reason = what + ": " + std::strerror(errno);
    return false;
}

bool make_parents(const std::string& path) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
        if (::mkdir(path.substr(0, slash).c_str(), 0755) != 0 && errno != EEXIST) return false;
    }
    return true;
}

// As of linux/mount.h, which cannot be included beside sys/mount.h everywhere.
struct MountAttributes {
    uint64_t set, clear, propagation, user_namespace;
};
constexpr uint64_t kReadOnly = 0x1, kNoSuid = 0x2, kNoDevices = 0x4, kNoExec = 0x8;
constexpr unsigned kRecursive = 0x8000;  // AT_RECURSIVE

// mount() would change the topmost mount only, and leave writable what is mounted below it.
bool restrict_mount(const char* path, uint64_t attributes) {
#ifdef SYS_mount_setattr
    MountAttributes change = {attributes, 0, 0, 0};
    return ::syscall(SYS_mount_setattr, AT_FDCWD, path, kRecursive, &change, sizeof change) == 0;
#else
    (void)path, (void)attributes;
    errno = ENOSYS;
    return false;
#endif
}

bool expose(const std::string& path, uint64_t attributes, std::string* reason) {
    const std::string host = kHost + path;
    struct stat status = {};
    if (::lstat(host.c_str(), &status) != 0) return failed(reason, path);
    if (!make_parents(path)) return failed(reason, "cannot make the folder of " + path);
    if (S_ISLNK(status.st_mode)) {
        char target[PATH_MAX] = {};
        if (::readlink(host.c_str(), target, sizeof target - 1) < 0 ||
            (::symlink(target, path.c_str()) != 0 && errno != EEXIST)) {
            return failed(reason, "cannot repeat the link " + path);
        }
        return true;
    }
    if (S_ISDIR(status.st_mode)) {
        if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return failed(reason, path);
    } else {
        const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
        if (!file.valid()) return failed(reason, path);
    }
    if (::mount(host.c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
        return failed(reason, "cannot bind " + path);
    }
    if (!restrict_mount(path.c_str(), attributes)) {
        return failed(reason, "cannot restrict the mount of " + path + " (needs Linux 5.12)");
    }
    return true;
}

constexpr unsigned long kPrivate = MS_NOSUID | MS_NODEV | MS_NOEXEC;
// Without times of access: a worker that starts follows links here, and noting when is writing,
// with which the root cannot become read-only. Not for /proc: without root's rights on the host,
// the kernel wants it to note times as the host's does.
constexpr unsigned long kTmpfs = kPrivate | MS_NOATIME;

bool mount_tmpfs(const char* path, const char* options, std::string* reason) {
    if (::mount("tmpfs", path, "tmpfs", kTmpfs, options) == 0) return true;
    return failed(reason, std::string("cannot mount a tmpfs on ") + path);
}

bool make_devices(const Config& config, std::string* reason) {
    for (const char* name : {"null", "zero", "full", "random", "urandom"}) {
        if (!expose(std::string("/dev/") + name, kNoSuid | kNoExec, reason)) return false;
    }
    for (const std::string& path : config.device) {
        if (!expose(path, kNoSuid | kNoExec, reason)) return false;
    }
    constexpr const char* kLinks[][2] = {{"/proc/self/fd", "/dev/fd"},
                                         {"/proc/self/fd/0", "/dev/stdin"},
                                         {"/proc/self/fd/1", "/dev/stdout"},
                                         {"/proc/self/fd/2", "/dev/stderr"},
                                         {"/tmp", "/dev/shm"}};
    for (const auto& [target, path] : kLinks) {
        if (::symlink(target, path) != 0) return failed(reason, path);
    }
    return true;
}

bool write_file(const char* path, const std::string& text) {
    const UniqueFd file(::open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
    return file.valid() &&
           ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Libraries look up the user that they run as; of other users there is nothing to know.
bool make_users(const Config& config, std::string* reason) {
    const std::string uid = std::to_string(config.uid < 0 ? ::getuid() : config.uid);
    const std::string gid = std::to_string(config.uid < 0 ? ::getgid() : config.uid);
    ::mkdir("/etc", 0755);
    if (write_file("/etc/passwd", "worker:x:" + uid + ":" + gid + "::/tmp:/bin/false\n") &&
        write_file("/etc/group", "worker:x:" + gid + ":\n")) {
        return true;
    }
    return failed(reason, "cannot write /etc/passwd");
}

bool make_proc(const Config& config, std::string* reason) {
    if (::mkdir("/proc", 0755) != 0) return failed(reason, "/proc");
    // Without a pid namespace there is nothing of our own to show.
    if (!config.has(kPid)) {
        ::rmdir("/proc");
        return expose("/proc", kReadOnly | kNoSuid | kNoDevices | kNoExec, reason);
    }
    if (::mount("proc", "/proc", "proc", kPrivate, nullptr) == 0) return true;
    return failed(reason, "cannot mount /proc");
}

}  // namespace

bool build_root(const Config& config, std::string* reason) {
    // What is unmounted on the host goes here, too; nothing of ours goes there.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
        return failed(reason, "cannot part from the host's mounts");
    }
    const std::string inside = std::string(kStage) + kHost;
    if (!mount_tmpfs(kStage, "mode=755,size=1m", reason)) return false;
    if (::mkdir(inside.c_str(), 0700) != 0 ||
        ::syscall(SYS_pivot_root, kStage, inside.c_str()) != 0 || ::chdir("/") != 0) {
        return failed(reason, "cannot change the root");
    }
    // Before the rest: some of it may be bound to places below.
    if (::mkdir("/tmp", 0755) != 0) return failed(reason, "/tmp");
    if (!mount_tmpfs("/tmp", "mode=1777,size=1m", reason)) return false;
    for (const std::string& path : config.read) {
        if (!expose(path, kReadOnly | kNoSuid | kNoDevices, reason)) return false;
    }
    if (!make_devices(config, reason) || !make_users(config, reason)) return false;
    return make_proc(config, reason);
}

bool close_root(const Assignment& assignment, std::string* reason) {
    for (const std::string& path : assignment.package) {
        if (!expose(path, kReadOnly | kNoSuid | kNoDevices, reason)) return false;
    }
    const std::string size = "size=" + std::to_string(assignment.tmp_bytes);
    if (assignment.tmp_bytes != 0 &&
        ::mount(nullptr, "/tmp", nullptr, MS_REMOUNT | kTmpfs, size.c_str()) != 0) {
        return failed(reason, "cannot give /tmp its size");
    }
    if (::umount2(kHost, MNT_DETACH) != 0 || ::rmdir(kHost) != 0) {
        return failed(reason, "cannot detach the host's root");
    }
    if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kTmpfs, nullptr) != 0) {
        return failed(reason, "cannot make the root read-only");
    }
    return true;
}

}  // namespace rfaas::sandbox
