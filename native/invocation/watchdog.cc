#include "invocation/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include "core/time.h"

namespace rfaas::invocation {

namespace {
constexpr useconds_t kTickUs = 5'000;  // how late a deadline may be enforced
}

Watchdog::Watchdog(std::function<void()> expire) : expire_(std::move(expire)) {
    // Signals are for the worker's thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watchdog::~Watchdog() {
    stop_.store(true);
    wake();
    thread_.join();
}

void Watchdog::run() {
    while (!stop_.load()) {
        resting_.wait(1, std::memory_order_acquire);
        uint64_t deadline = deadline_ns_.load(std::memory_order_acquire);
        if (deadline > kExpired && monotonic_ns() >= deadline &&
            deadline_ns_.compare_exchange_strong(deadline, kExpired)) {
            expire_();
        }
        ::usleep(kTickUs);
    }
}

void Watchdog::park() {
    for (;;) ::pause();
}

}  // namespace rfaas::invocation
