// Spinning with manners: for the first microseconds nothing but the poll, then a look at the clock,
// then, now and then, the core is offered to whoever else wants it. On a core of its own that costs
// a fraction of a per cent; on a shared one it is the difference between microseconds and the
// scheduler's time slice.
#pragma once

#include <sched.h>

#include "core/time.h"

namespace rfaas {

class Spinner {
  public:
    // The budget counts from the first look at the clock, not from here: what is answered within a
    // few microseconds never pays for reading it. kNoLimit spins for ever.
    explicit Spinner(uint64_t budget_ns) : budget_ns_(budget_ns) {}

    static constexpr uint64_t kNoLimit = UINT64_MAX;

    // Between two polls. False: the budget is used up.
    [[nodiscard]] bool wait() {
        cpu_relax();
        if (++turns_ % kTurnsPerLook != 0) [[likely]]
            return true;
        return look();
    }

    // What is left of the budget, for who has stopped to wait.
    [[nodiscard]] uint64_t left_ns() const {
        if (begin_ns_ == 0 || budget_ns_ == kNoLimit) return budget_ns_;
        const uint64_t spent = monotonic_ns() - begin_ns_;
        return spent < budget_ns_ ? budget_ns_ - spent : 0;
    }

  private:
    static constexpr uint32_t kTurnsPerLook = 64;     // about a microsecond
    static constexpr uint32_t kTurnsPerYield = 2048;  // some tens of microseconds

    [[nodiscard]] bool look() {
        if (turns_ % kTurnsPerYield == 0) ::sched_yield();
        if (budget_ns_ == kNoLimit) return true;
        const uint64_t now = monotonic_ns();
        if (begin_ns_ == 0) begin_ns_ = now;
        return now - begin_ns_ < budget_ns_;
    }

    uint64_t budget_ns_;
    uint64_t begin_ns_ = 0;
    uint32_t turns_ = 0;
};

}  // namespace rfaas
