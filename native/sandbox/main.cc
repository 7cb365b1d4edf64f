// rfaas-sandbox: starts a worker with as little as it needs of its host.
//
//     manager ── rfaas-sandbox ── init ── worker
//
// The first process stays outside: it ends as the worker does, by the same signal or exit code, and
// the CPU time of everything inside is in its own. Init is the first process of the new namespaces
// and reaps what is left without a parent there. When the worker ends, init does, and with it
// whatever the worker has started. When the manager ends, or kills the first process, all of them
// do.
//
// The place is made first, and the worker's program starts in it. Then it waits for what it is for
// (config.h), which the manager may say at once, or when a lease comes. The worker hears on stdin
// what to run, and does not look there before init lets it go: when all limits hold. Until then
// nothing but our own programs runs in there.
//
// Descriptors: 0 to 2 and 3 (events) are the worker's. 4 is the configuration, and for the worker
// the socket that it listens on. 5 is for the worker a file that it keeps the id of its last
// request in; the first process tells it when the worker has ended, as the last event. 6 is for the
// worker the end of a pipe: a byte from init lets it go, its end says that it never will. Those
// that come from the manager stay open in init and nowhere below: the manager sees by them that
// everything has ended.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/affinity.h"
#include "core/json.h"
#include "core/unique_fd.h"
#include "sandbox/config.h"
#include "sandbox/descriptors.h"
#include "sandbox/landlock.h"
#include "sandbox/privileges.h"
#include "sandbox/root.h"
#include "sandbox/seccomp.h"

using namespace rfaas;
using namespace rfaas::sandbox;

namespace {

constexpr int kEventsFd = 3;
constexpr int kConfigFd = 4;
constexpr int kSocketFd = 4;
constexpr int kStartedFd = 5;
constexpr int kHeldFd = 5;
constexpr int kGoFd = 6;
constexpr int kFreeFd = 7;        // from here on, descriptors of our own
constexpr int kUnconfined = 125;  // exit code: the worker was not started
constexpr size_t kMaxConfig = 1 << 20;
constexpr int kBacklog = 64;

void send_event(const std::string& line) {
    [[maybe_unused]] const ssize_t bytes = ::write(kEventsFd, line.data(), line.size());
}

// `part` is a layer, or what else could not be done.
[[noreturn]] void fail(const char* part, const std::string& message) {
    const std::string line = "{\"event\":\"unconfined\",\"layer\":" + json_string(part) +
                             ",\"message\":" + json_string(message) + "}\n";
    send_event(line);
    ::_exit(kUnconfined);
}

std::string because(const std::string& what) {
    return what + ": " + std::strerror(errno);
}

// What the manager says, part by part.
class Inbox {
  public:
    Inbox() : fd_(::fcntl(kConfigFd, F_DUPFD_CLOEXEC, kFreeFd)) {}
    void close() { fd_.reset(); }

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] bool has_part() const { return end_of_part() != std::string::npos; }

    // Waits for bytes. False: the manager has nothing more to say.
    [[nodiscard]] bool receive() {
        char block[4096];
        const ssize_t count = ::read(fd_.get(), block, sizeof block);
        if (count < 0 && errno == EINTR) return true;
        if (count < 0) fail("start", because("cannot read the configuration"));
        text_.append(block, static_cast<size_t>(count));
        if (text_.size() > kMaxConfig) fail("start", "the configuration is too long");
        return count > 0;
    }

    // Without the empty line at its end.
    [[nodiscard]] std::string take_part() {
        const size_t end = end_of_part();
        std::string part = text_.substr(0, end);
        text_.erase(0, end + 1);
        return part;
    }

  private:
    [[nodiscard]] size_t end_of_part() const {
        if (!text_.empty() && text_[0] == '\n') return 0;
        const size_t end = text_.find("\n\n");
        return end == std::string::npos ? end : end + 1;
    }

    UniqueFd fd_;
    std::string text_;
};

Config read_config(Inbox* inbox) {
    while (!inbox->has_part()) {
        if (!inbox->receive()) fail("start", "the configuration has no end");
    }
    Config config;
    std::string reason;
    if (!parse_config(inbox->take_part(), &config, &reason)) fail("start", reason);
    return config;
}

// Made out here, so that the worker needs no folder to write to. The mode and the owner of the
// socket's file say who may connect, and the kernel checks it.
void listen_for(const Config& config) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    if (config.socket.size() >= sizeof address.sun_path) fail("start", "the socket's name is long");
    std::memcpy(address.sun_path, config.socket.data(), config.socket.size());
    const UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // bind() honours fchmod() on the socket: the file is never open to others, not for a moment.
    if (!socket.valid() || ::fchmod(socket.get(), 0600) != 0 ||
        ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        fail("start", because("cannot listen on " + config.socket));
    }
    if (::dup2(socket.get(), kSocketFd) != kSocketFd) fail("start", because("dup2"));
}

constexpr struct {
    Layer layer;
    unsigned long flags;
} kNamespaces[] = {{kUser, CLONE_NEWUSER},
                   {kMount, CLONE_NEWNS},
                   {kPid, CLONE_NEWPID},
                   {kIpc, CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP},
                   {kNetwork, CLONE_NEWNET}};

// Like fork(), with the namespaces of `layers`.
long clone_into(const Config& config, uint32_t layers) {
    unsigned long flags = SIGCHLD;
    for (const auto& [layer, its_flags] : kNamespaces) {
        const bool by_uid = layer == kUser && config.uid >= 0;
        if ((layers & layer) != 0 && !by_uid) flags |= its_flags;
    }
    return ::syscall(SYS_clone, flags, 0, 0, 0, 0);
}

// The kernel does not say which of them it refuses.
[[noreturn]] void fail_by_namespace(const Config& config) {
    const std::string all = because("cannot make namespaces");
    for (const auto& [layer, flags] : kNamespaces) {
        if (!config.has(layer)) continue;
        const long child = clone_into(config, layer | (config.layers & kUser));
        if (child == 0) ::_exit(0);
        if (child < 0) fail(layer_name(layer), because("the kernel refuses the namespace"));
        ::waitpid(static_cast<pid_t>(child), nullptr, 0);
    }
    fail("start", all);
}

// ── the worker's process, before it is the worker ───────────────────────────────────────────────

[[noreturn]] void become_worker(const Config& config, char** command, pid_t init,
                                const UniqueFd& started) {
    std::string reason;
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD}) ::signal(signal, SIG_DFL);
    ::signal(SIGXFSZ, SIG_IGN);  // a file that is too long is an error, not an end
    if (config.has(kRlimits) && !open_limits(&reason)) fail("rlimits", reason);
    Layer failed = kUser;
    if (!drop_privileges(config, &failed, &reason)) fail(layer_name(failed), reason);
    // Not before: changing the user resets it.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != init) ::_exit(kUnconfined);
    if (config.has(kLandlock) && !restrict_files(config, &reason)) fail("landlock", reason);
    if (config.has(kSeccomp) && !filter_system_calls(config, &reason)) fail("seccomp", reason);
    if (::dup2(started.get(), kStartedFd) != kStartedFd) fail("start", because("dup2"));
    if (config.socket.empty()) ::close(kSocketFd);
    ::fcntl(kGoFd, F_SETFD, 0);
    // One of them tells init that we have come so far.
    if (close_descriptors(kFreeFd) < 0) {
        fail("start", because("cannot close inherited files"));
    }
    ::execv(command[0], command);
    fail("start", because(std::string("cannot start ") + command[0]));
}

// ── init ────────────────────────────────────────────────────────────────────────────────────────

// What is left of the worker when there is no namespace that ends it: children of ours, because
// they were left to us, and when they end, their children.
void end_rest() {
    const std::string path = "/proc/self/task/" + std::to_string(::getpid()) + "/children";
    for (;;) {
        const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        char text[4096] = {};
        if (!file.valid() || ::read(file.get(), text, sizeof text - 1) <= 0) return;
        char* end = text;
        for (char* at = text; const long pid = std::strtol(at, &end, 10); at = end) {
            ::kill(static_cast<pid_t>(pid), SIGKILL);
        }
        if (::waitpid(-1, nullptr, 0) < 0 && errno != EINTR) return;
    }
}

// Waits until the manager has said what the worker is for. Nothing if the worker has ended.
std::optional<Assignment> await_assignment(Inbox* inbox, pid_t worker) {
    sigset_t none;
    ::sigemptyset(&none);
    while (!inbox->has_part()) {
        pollfd look = {inbox->fd(), POLLIN, 0};
        // SIGCHLD is blocked but here: an end is not overlooked.
        const bool said = ::ppoll(&look, 1, nullptr, &none) > 0;
        if (said && !inbox->receive()) ::_exit(kUnconfined);
        siginfo_t ended = {};
        const auto id = static_cast<id_t>(worker);
        if (::waitid(P_PID, id, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 || ended.si_pid != 0) {
            return std::nullopt;
        }
    }
    Assignment assignment;
    std::string reason;
    if (!parse_assignment(inbox->take_part(), &assignment, &reason)) fail("start", reason);
    return assignment;
}

// From here on the place is the lease's: what a tenant's code must not have is taken away.
void assign(const Config& config, const Assignment& assignment, pid_t worker) {
    std::string reason;
    if (assignment.socket_owner >= 0) {
        const std::string path = (config.has(kMount) ? kHost : "") + config.socket;
        const auto owner = static_cast<uid_t>(assignment.socket_owner);
        if (::lchown(path.c_str(), owner, static_cast<gid_t>(-1)) != 0) {
            fail("start", because("cannot give " + config.socket + " to its client"));
        }
    }
    if (config.has(kMount) && !close_root(assignment, &reason)) fail("mount", reason);
    Layer failed = kUser;
    if (!drop_privileges(config, &failed, &reason)) fail(layer_name(failed), reason);
    // Changing the user has reset both. The worker has the same user as we, but is not to look into
    // us.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::prctl(PR_SET_DUMPABLE, 0);
    if (config.has(kRlimits) && !set_limits(worker, assignment, &reason)) fail("rlimits", reason);
    if (assignment.core < 0) return;
    const int rc = pin_process_to_core(worker, assignment.core);
    if (rc == 0 || rc == -ENOENT) return;  // or it has ended
    fail("start",
         "cannot pin to core " + std::to_string(assignment.core) + ": " + std::strerror(-rc));
}

[[noreturn]] void run_init(const Config& config, char** command, Inbox* inbox,
                           const UniqueFd& mapped, const UniqueFd& status, const UniqueFd& started,
                           const UniqueFd& go) {
    std::string reason;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    char byte = 0;
    if (::read(mapped.get(), &byte, 1) != 1) ::_exit(kUnconfined);  // the first process has ended
    if (!config.has(kPid)) ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (config.has(kIpc) && ::sethostname("worker", 6) != 0) fail("ipc", because("sethostname"));
    if (config.has(kMount) && !build_root(config, &reason)) fail("mount", reason);
    sigset_t child;
    ::sigemptyset(&child);
    ::sigaddset(&child, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child, nullptr);
    ::signal(SIGCHLD, [](int) {});  // so that it ends a wait

    int confined[2];
    if (::pipe2(confined, O_CLOEXEC) != 0) fail("start", because("pipe"));
    const pid_t init = ::getpid();
    const pid_t worker = ::fork();
    if (worker < 0) fail("start", because("cannot fork"));
    if (worker == 0) become_worker(config, command, init, started);
    ::close(confined[1]);
    ::close(kGoFd);
    while (::read(confined[0], &byte, 1) < 0 && errno == EINTR) {
    }
    ::close(confined[0]);
    if (const auto assignment = await_assignment(inbox, worker)) {
        assign(config, *assignment, worker);
        [[maybe_unused]] const ssize_t bytes = ::write(go.get(), "g", 1);  // or it has ended
    }
    // The manager must see the ends of the worker's pipes when the worker closes them.
    for (int fd = 0; fd <= kSocketFd; ++fd) ::close(fd);
    for (;;) {
        int ended = 0;
        const pid_t pid = ::waitpid(-1, &ended, 0);
        if (pid < 0 && errno != EINTR) ::_exit(kUnconfined);
        if (pid != worker) continue;
        [[maybe_unused]] const ssize_t bytes = ::write(status.get(), &ended, sizeof ended);
        if (!config.has(kPid)) end_rest();
        ::_exit(0);
    }
}

// ── the first process ───────────────────────────────────────────────────────────────────────────

bool write_text(const std::string& path, const std::string& text) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    return file.valid() &&
           ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// In the new user namespace there is one user, with the same number as outside.
void map_user(pid_t init) {
    const std::string folder = "/proc/" + std::to_string(init) + "/";
    const std::string uid = std::to_string(::geteuid()), gid = std::to_string(::getegid());
    if (!write_text(folder + "setgroups", "deny") ||
        !write_text(folder + "uid_map", uid + " " + uid + " 1") ||
        !write_text(folder + "gid_map", gid + " " + gid + " 1")) {
        fail("user", because("cannot map the user into its namespace"));
    }
}

// Whatever is started from here on is in the lease's groups, too. A thread that moves itself ("0")
// through a file of version 1 need not wait until every processor has noticed, which takes 20 ms.
void join_groups(const Config& config) {
    for (const std::string& file : config.cgroups) {
        if (!write_text(file, "0")) fail("cgroup", because(file));
    }
}

// What lets the worker go; its end of the pipe takes its place.
UniqueFd make_go() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("start", because("pipe"));
    UniqueFd theirs(::fcntl(ends[0], F_DUPFD_CLOEXEC, kFreeFd));
    UniqueFd ours(::fcntl(ends[1], F_DUPFD_CLOEXEC, kFreeFd));
    ::close(ends[0]);
    ::close(ends[1]);
    if (!ours.valid() || ::dup3(theirs.get(), kGoFd, O_CLOEXEC) != kGoFd) {
        fail("start", because("pipe"));
    }
    return ours;
}

// Where the worker keeps the id of the request that it has started last.
UniqueFd make_started() {
    const UniqueFd file(::memfd_create("rfaas-started", MFD_CLOEXEC));
    UniqueFd moved(::fcntl(file.get(), F_DUPFD_CLOEXEC, kFreeFd));
    if (!moved.valid() || ::ftruncate(moved.get(), sizeof(uint64_t)) != 0) {
        fail("start", because("memfd"));
    }
    return moved;
}

// The file is the worker's to write: what it says of itself may be wrong, and it may have cut the
// file off. A pipe that nobody empties is not waited for.
void tell_started(const UniqueFd& started) {
    uint64_t id = 0;
    if (::pread(started.get(), &id, sizeof id, 0) != static_cast<ssize_t>(sizeof id)) return;
    ::fcntl(kEventsFd, F_SETFL, O_NONBLOCK);
    send_event("{\"event\":\"last-started\",\"requestId\":\"" + std::to_string(id) + "\"}\n");
}

// The same end as the worker's, for whoever waits for us.
[[noreturn]] void end_like(int status) {
    if (WIFSIGNALED(status)) {
        const rlimit none = {0, 0};
        ::setrlimit(RLIMIT_CORE, &none);
        ::signal(WTERMSIG(status), SIG_DFL);
        ::raise(WTERMSIG(status));
    }
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : kUnconfined);
}

[[noreturn]] void launch(const Config& config, char** command, Inbox* inbox) {
    UniqueFd go = make_go();
    int mapped[2], status[2];
    if (::pipe2(mapped, O_CLOEXEC) != 0 || ::pipe2(status, O_CLOEXEC) != 0) {
        fail("start", because("pipe"));
    }
    UniqueFd mapped_out(mapped[0]), mapped_in(mapped[1]);
    UniqueFd status_out(status[0]), status_in(status[1]);
    const UniqueFd started = make_started();
    if (config.has(kCgroup)) join_groups(config);
    const long init = clone_into(config, config.layers);
    if (init < 0) fail_by_namespace(config);
    if (init == 0) {
        mapped_in.reset();
        status_out.reset();
        run_init(config, command, inbox, mapped_out, status_in, started, go);
    }
    mapped_out.reset();
    status_in.reset();
    go.reset();
    if (config.has(kUser) && config.uid < 0) map_user(static_cast<pid_t>(init));
    if (::write(mapped_in.get(), "m", 1) != 1) fail("start", because("init has ended"));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, kSocketFd, kGoFd}) {
        ::close(fd);
    }
    inbox->close();  // it is init's now

    int ended = 0;
    while (::waitpid(static_cast<pid_t>(init), &ended, 0) < 0) {
        if (errno != EINTR) ::_exit(kUnconfined);
    }
    int worker_ended = 0;
    const bool told = ::read(status_out.get(), &worker_ended, sizeof worker_ended) ==
                      static_cast<ssize_t>(sizeof worker_ended);
    tell_started(started);
    end_like(told ? worker_ended : ended);
}

}  // namespace

int main(int argc, char** argv) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 2 && std::string_view(argv[1]) == "--nothing") return 0;  // a worker, for trying
    if (argc < 3 || std::string_view(argv[1]) != "--" || argv[2][0] != '/') {
        static constexpr char kUsage[] =
            "usage: rfaas-sandbox -- /path/of/program [arguments]\n"
            "Started by the executor manager, with a configuration on file descriptor 4.\n";
        [[maybe_unused]] const ssize_t bytes = ::write(STDERR_FILENO, kUsage, sizeof kUsage - 1);
        return 2;
    }
    // Ends are decided by the manager, and by the worker itself; a terminal's signals do not reach
    // us.
    ::setsid();
    // Folders of the place are open to its user, whatever the manager's own files are.
    ::umask(022);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
    // Nothing that the manager has open, and forgot to keep for itself, goes further than this.
    if (close_descriptors(kHeldFd + 1) < 0) fail("start", because("cannot close inherited files"));
    Inbox inbox;
    const Config config = read_config(&inbox);
    if (config.socket.empty()) {
        ::close(kConfigFd);
    } else {
        listen_for(config);  // takes its place
    }
    launch(config, argv + 2, &inbox);
}
