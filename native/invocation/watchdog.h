// Ends a process whose function runs past its deadline. Nothing can interrupt a function from
// outside, so another thread answers for it and takes the process down; the manager starts a new
// worker. While the function runs nobody else uses the channel, and end() tells the function's
// thread if it came too late: that is how the two threads never use the channel at once.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace rfaas::invocation {

class Watchdog {
  public:
    // `expire` runs on the watchdog's thread and must not return.
    explicit Watchdog(std::function<void()> expire);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    // Around each call, on the worker's thread. `deadline_ns` 0: no deadline.
    void begin(uint64_t deadline_ns) {
        deadline_ns_.store(deadline_ns, std::memory_order_release);
        // A worker may be woken by something else than its channel, and find a call all the same.
        if (resting_.load(std::memory_order_relaxed) != 0) [[unlikely]]
            wake();
    }
    void end() {
        if (deadline_ns_.exchange(0, std::memory_order_acq_rel) == kExpired) [[unlikely]]
            park();
    }

    // Around each sleep of the worker: a watchdog with nothing to watch costs no time at all.
    void rest() { resting_.store(1, std::memory_order_release); }
    void wake() {
        resting_.store(0, std::memory_order_release);
        resting_.notify_one();
    }

  private:
    static constexpr uint64_t kExpired = 1;
    void run();
    [[noreturn]] static void park();

    std::function<void()> expire_;
    std::atomic<uint64_t> deadline_ns_{0};  // of the running call, or kExpired
    std::atomic<int> resting_{1};
    // Only for the end, which is not to wait for a tick: the release of a lease waits for it.
    std::mutex mutex_;
    std::condition_variable stopped_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace rfaas::invocation
