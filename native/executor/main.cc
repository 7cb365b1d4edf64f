// rfaas-executor: one worker that runs the functions of a native package. Started by the executor
// manager through the launcher (sandbox/main.cc), which pins and confines it; configured on stdin
// (config.h), reporting on file descriptor 3 (events.h). With `--go-fd=N` it looks at its stdin
// when a byte has come from there: the launcher has done all it had to. It ends when its stdin
// does: a manager that dies takes its workers along.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "core/time.h"
#include "executor/config.h"
#include "executor/events.h"
#include "executor/package.h"
#include "invocation/watchdog.h"
#include "invocation/worker_channel.h"

using namespace rfaas;

namespace {

constexpr int kTimedOut = 124;  // exit code of a worker whose function ran past its deadline
// Between two looks at stdin while the worker is hot: a look takes a thousandth of it, and whoever
// stops the worker waits for it.
constexpr uint64_t kLookNs = 1'000'000;
constexpr size_t kMaxOrderBytes = 64;

volatile sig_atomic_t stop_requested = 0;

class Worker {
  public:
    static inline Worker* instance = nullptr;  // for handlers, which know nothing else

    Worker(executor::Config config, std::vector<executor::Function> functions,
           executor::Events* events)
        : config_(std::move(config)),
          functions_(std::move(functions)),
          events_(events),
          channel_(events),
          watchdog_([this] { expire(); }) {
        instance = this;
        executor::install_crash_handler(
            [](const char* cause) { instance->function_ended_process(cause); });
        executor::install_exit_handler();
    }
    ~Worker() { instance = nullptr; }

    [[nodiscard]] bool open(std::string* reason) {
        config_.channel.function_count = static_cast<uint32_t>(functions_.size());
        const int rc = channel_.open(config_.channel, reason);
        if (rc < 0) {
            *reason += std::string(": ") + std::strerror(-rc);
            return false;
        }
        events_->ready(channel_.address(), functions_);
        return true;
    }

    // What the manager says: lines, which may arrive in pieces.
    void obey(std::string_view text) {
        for (const char byte : text) {
            if (byte != '\n') {
                if (order_.size() < kMaxOrderBytes) order_ += byte;
                continue;
            }
            if (order_ == "stop") stop_requested = 1;
            if (order_ == "drain") {
                refusing_ = true;
                channel_.refuse(wire::CallStatus::kLeaseRevoked);
            }
            order_.clear();
        }
    }

    // Hot: spins for calls. Warm, after hot_timeout_us without one, or without a client: sleeps
    // until something happens. What the manager says is heard within kLookNs, or when the running
    // function has returned.
    int run() {
        watchdog_.wake();
        const uint64_t hot_ns = config_.hot_timeout_us * 1000;
        uint64_t idle_ns = 0;
        while (stop_requested == 0) {
            const bool hot = channel_.has_client();
            const uint64_t budget_ns = hot ? std::min(kLookNs, hot_ns - idle_ns) : 0;
            const int rc = channel_.next(&call_, budget_ns);
            if (rc < 0) return fabric_failed(rc);
            if (rc == 1) {
                idle_ns = 0;
                if (static_cast<int64_t>(call_.arrived_ns - looked_ns_) >= int64_t{kLookNs})
                    [[unlikely]] {
                    listen(0);
                    if (refusing_ || stop_requested != 0) {
                        give_back();
                        continue;
                    }
                }
                serve();
            } else if (hot && (idle_ns += budget_ns) < hot_ns) {
                listen(0);
            } else {
                sleep();
                idle_ns = 0;
            }
        }
        channel_.refuse(wire::CallStatus::kLeaseEnded);
        (void)channel_.next(&call_, 0);  // answers what has arrived
        channel_.settle();
        return 0;
    }

  private:
    [[nodiscard]] int fabric_failed(int rc) {
        events_->error(std::string("the fabric failed: ") + std::strerror(-rc));
        return 1;
    }

    void serve() {
        const executor::Function& function = functions_[call_.function];
        if (call_.deadline_ns != 0) watchdog_.begin(call_.deadline_ns);
        executor::set_running(function.name.c_str(), call_.request_id);
        int64_t result = 0;
        rfaas_context context = {};
        if (function.call != nullptr) {
            error_[0] = '\0';
            context.abi = RFAAS_FUNCTION_ABI;
            context.worker = config_.worker;
            context.request_id = call_.request_id;
            context.deadline_ns = call_.deadline_ns;
            context.error = error_;
            context.error_capacity = sizeof error_;
            result = function.call(call_.input, call_.input_length, call_.output,
                                   call_.output_capacity, &context);
        } else {
            result = function.legacy(const_cast<uint8_t*>(call_.input), call_.input_length,
                                     call_.output);
        }
        executor::set_running(nullptr, 0);
        if (call_.deadline_ns != 0) watchdog_.end();
        if (result >= 0 && result <= UINT32_MAX) [[likely]] {
            channel_.reply(call_.slot, static_cast<uint32_t>(result));
        } else if (result == RFAAS_OUTPUT_TOO_SMALL) {
            channel_.fail(call_.slot, wire::CallStatus::kOutputTooSmall,
                          "the result does not fit an output of " +
                              std::to_string(call_.output_capacity) + " bytes");
        } else {
            error_[sizeof error_ - 1] = '\0';
            const char* text = error_[0] != '\0' ? error_ : "the function failed without a message";
            channel_.fail(call_.slot, wire::CallStatus::kFunctionError, text);
        }
    }

    // Watchdog's thread, while serve() is inside a function.
    [[noreturn]] void expire() {
        events_->timed_out(functions_[call_.function].name, call_.request_id);
        channel_.fail_last(call_.slot, wire::CallStatus::kDeadline,
                           "the function ran past its deadline; its worker is being restarted");
        ::_exit(kTimedOut);
    }

    // Until there is something to do.
    void sleep() {
        watchdog_.rest();
        listen(0);
        if (stop_requested != 0 || channel_.arm() != 0) return;
        const int rc = channel_.next(&call_, 0);
        if (rc == 0) {
            listen(-1);
            channel_.acknowledge();
        }
        watchdog_.wake();
        if (rc == 1) serve();
    }

    // Waits for the manager (timeout_ms -1: or the channel) and does what it says. The end of stdin
    // says "stop".
    void listen(int timeout_ms) {
        looked_ns_ = coarse_monotonic_ns();
        pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {channel_.fd(), POLLIN, 0}};
        if (::poll(fds, timeout_ms == 0 ? 1 : 2, timeout_ms) <= 0 || fds[0].revents == 0) return;
        char text[256];
        const ssize_t bytes = ::read(STDIN_FILENO, text, sizeof text);
        if (bytes == 0 || (bytes < 0 && errno != EINTR)) stop_requested = 1;
        if (bytes > 0) obey({text, static_cast<size_t>(bytes)});
    }

    // call_ was taken before the manager was heard, and has not started.
    void give_back() {
        if (stop_requested != 0) channel_.refuse(wire::CallStatus::kLeaseEnded);
        channel_.take_back(call_.slot);
    }

    // On the function's own stack, from a signal handler or exit(): the process is about to end.
    void function_ended_process(const char* cause) {
        channel_.fail_last(call_.slot, wire::CallStatus::kWorkerLost, cause);
    }

    executor::Config config_;
    std::vector<executor::Function> functions_;
    executor::Events* events_;
    invocation::WorkerChannel channel_;
    invocation::Call call_;
    char error_[wire::kErrorTextBytes + 1] = {};
    uint64_t looked_ns_ = 0;  // at stdin, on the coarse clock
    bool refusing_ = false;
    std::string order_;              // the begin of the manager's next line
    invocation::Watchdog watchdog_;  // last: its thread uses the others
};

void on_terminate(int) {
    stop_requested = 1;
}

// Until the launcher lets us go. False: it has ended, or there is no such descriptor.
bool await_go(const char* argument) {
    static constexpr std::string_view kOption = "--go-fd=";
    const std::string_view text = argument;
    int fd = -1;
    if (!text.starts_with(kOption) ||
        std::from_chars(text.data() + kOption.size(), text.data() + text.size(), fd).ec !=
            std::errc()) {
        return false;
    }
    char byte = 0;
    ssize_t count = 0;
    while ((count = ::read(fd, &byte, 1)) < 0 && errno == EINTR && stop_requested == 0) {
    }
    ::close(fd);
    return count == 1;
}

}  // namespace

int main(int argc, char** argv) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {};
    action.sa_handler = on_terminate;  // no SA_RESTART: it must end a sleeping poll()
    ::sigaction(SIGTERM, &action, nullptr);
    ::sigaction(SIGINT, &action, nullptr);

    executor::Events events;
    executor::Config config;
    std::string reason;
    const auto fail = [&events](const std::string& message) {
        events.error(message);
        return 1;
    };
    if (argc > 1 && !await_go(argv[1])) return 1;
    std::string orders;
    if (!executor::read_config(STDIN_FILENO, &config, &orders, &reason)) return fail(reason);
    std::vector<executor::Function> functions;
    if (!executor::load_package(config.package, &functions, &reason)) {
        return fail("the package cannot be loaded: " + reason);
    }
    Worker worker(std::move(config), std::move(functions), &events);
    if (!worker.open(&reason)) return fail(reason);
    worker.obey(orders);
    return worker.run();
}
