#include "addon/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon/module.h"
#include "addon/util/args.h"
#include "addon/util/error.h"
#include "core/unique_fd.h"

namespace rfaas::addon {
namespace {

// From the start of a process until it has been waited for. Owns itself: nobody in JavaScript holds
// it, and a process is to be waited for whether or not somebody wants to know.
class Child final : public Closable {
  public:
    Child(Module& module, pid_t pid, UniqueFd pidfd, Napi::FunctionReference on_exit)
        : module_(module), pid_(pid), pidfd_(std::move(pidfd)), on_exit_(std::move(on_exit)) {
        module_.processes.add(this);
    }

    [[nodiscard]] int watch(Napi::Env env) {
        const int failed = watcher_.start(env, module_.handles, pidfd_.get(), [this] { reap(); });
        if (failed == 0) watcher_.ref();
        return failed;
    }

    ~Child() override { module_.processes.remove(this); }

    // It goes on; when this process ends it becomes somebody else's child.
    void close(CloseReason) override { delete this; }

  private:
    void reap() {
        int status = 0;
        rusage used = {};
        // libuv waits for its own processes only, by their ids.
        if (::wait4(pid_, &status, WNOHANG, &used) != pid_) return;
        Module& module = module_;
        const Napi::FunctionReference on_exit = std::move(on_exit_);
        close(CloseReason::kAsked);
        const Napi::Env env = on_exit.Env();
        const Napi::HandleScope scope(env);
        const auto number = [env](double value) { return Napi::Number::New(env, value); };
        const Napi::Value code =
            WIFEXITED(status) ? Napi::Value(number(WEXITSTATUS(status))) : env.Null();
        const Napi::Value signal =
            WIFSIGNALED(status) ? Napi::Value(number(WTERMSIG(status))) : env.Null();
        module.call(on_exit, {code, signal, number(milliseconds(used))});
    }

    // Of the process and of all below it that were waited for.
    static double milliseconds(const rusage& used) {
        const auto ms = [](const timeval& time) {
            return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_usec) / 1e3;
        };
        return ms(used.ru_utime) + ms(used.ru_stime);
    }

    Module& module_;
    pid_t pid_;
    UniqueFd pidfd_;
    Napi::FunctionReference on_exit_;
    FdWatcher watcher_;
};

std::vector<std::string> strings_arg(const Napi::CallbackInfo& info, size_t index) {
    const auto array = info[index].As<Napi::Array>();
    std::vector<std::string> out(array.Length());
    for (uint32_t i = 0; i < out.size(); ++i) out[i] = array.Get(i).ToString().Utf8Value();
    return out;
}

// For exec(): ends with a null.
std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> out;
    out.reserve(strings.size() + 1);
    for (std::string& text : strings) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
}

// A process's descriptors: what the child gets as 0, 1, 2 …, and our ends of its pipes.
struct Descriptors {
    std::vector<UniqueFd> theirs;
    std::vector<UniqueFd> ours;  // invalid where there is no pipe

    // Returns 0 or a negative errno.
    [[nodiscard]] int make(const Napi::Array& wanted) {
        for (uint32_t i = 0; i < wanted.Length(); ++i) {
            const int want = wanted.Get(i).ToNumber().Int32Value();
            UniqueFd our_end, their_end;
            if (want == kSpawnPipe) {
                int ends[2];
                if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
                our_end.reset(ends[0]);
                their_end.reset(ends[1]);
            } else if (want == kSpawnNull) {
                their_end.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
            } else {
                their_end.reset(::fcntl(want, F_DUPFD_CLOEXEC, 0));
            }
            // Above all that the child gets: none is overwritten before it is in its place.
            UniqueFd above(
                ::fcntl(their_end.get(), F_DUPFD_CLOEXEC, static_cast<int>(wanted.Length())));
            if (!above.valid()) return -errno;
            theirs.push_back(std::move(above));
            ours.push_back(std::move(our_end));
        }
        return 0;
    }
};

// As a program expects to be started: in the root folder, no signal ignored or blocked, and no
// descriptor but its own. Returns 0 or a negative errno.
int start(const std::string& path, char* const* arguments, char* const* environment,
          const Descriptors& descriptors, pid_t* pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    for (size_t i = 0; i < descriptors.theirs.size(); ++i) {
        ::posix_spawn_file_actions_adddup2(&actions, descriptors.theirs[i].get(),
                                           static_cast<int>(i));
    }
    ::posix_spawn_file_actions_addchdir_np(&actions, "/");
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int failed =
        ::posix_spawn(pid, path.c_str(), &actions, &attributes, arguments, environment);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    return -failed;
}

}  // namespace

Napi::Value spawn(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::string path = string_arg(info, 0);
    std::vector<std::string> arguments = strings_arg(info, 1);
    arguments.insert(arguments.begin(), path);
    std::vector<std::string> environment = strings_arg(info, 2);
    const auto fail = [&](int failed, const char* what) {
        throw_error(env, "ERR_RFAAS_EXECUTOR", path + " cannot be started", failed, what);
        return env.Undefined();
    };
    Descriptors descriptors;
    int failed = descriptors.make(info[3].As<Napi::Array>());
    if (failed != 0) return fail(failed, "pipe");
    pid_t pid = 0;
    failed =
        start(path, pointers(arguments).data(), pointers(environment).data(), descriptors, &pid);
    if (failed != 0) return fail(failed, "posix_spawn");
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    failed = pidfd.valid() ? 0 : -errno;
    if (failed == 0) {
        auto child = std::make_unique<Child>(Module::of(env), pid, std::move(pidfd),
                                             Napi::Persistent(info[4].As<Napi::Function>()));
        failed = child->watch(env);
        if (failed == 0) (void)child.release();
    }
    if (failed != 0) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return fail(failed, "pidfd_open");
    }
    auto ends = Napi::Array::New(env, descriptors.ours.size());
    for (uint32_t i = 0; i < descriptors.ours.size(); ++i) {
        UniqueFd& end = descriptors.ours[i];
        ends[i] = end.valid() ? Napi::Value(Napi::Number::New(env, end.release())) : env.Null();
    }
    auto out = Napi::Object::New(env);
    out.Set("pid", pid);
    out.Set("pipes", ends);
    return out;
}

}  // namespace rfaas::addon
