#include "invocation/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>

#include "core/time.h"

namespace rfaas::invocation {

namespace {
constexpr std::chrono::milliseconds kTick{5};  // how late a deadline may be enforced
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
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    stopped_.notify_one();
    wake();
    thread_.join();
}

void Watchdog::run() {
    for (;;) {
        resting_.wait(1, std::memory_order_acquire);
        uint64_t deadline = deadline_ns_.load(std::memory_order_acquire);
        if (deadline > kExpired && monotonic_ns() >= deadline &&
            deadline_ns_.compare_exchange_strong(deadline, kExpired)) {
            expire_();
        }
        std::unique_lock lock(mutex_);
        if (stopped_.wait_for(lock, kTick, [this] { return stop_; })) return;
    }
}

void Watchdog::park() {
    for (;;) ::pause();
}

}  // namespace rfaas::invocation
