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
    // `deadline_ns`: CLOCK_MONOTONIC, 0 for none.
    explicit Spinner(uint64_t deadline_ns) : deadline_ns_(deadline_ns) {}

    // Between two polls. False: the deadline has passed.
    [[nodiscard]] bool wait() {
        cpu_relax();
        if (++turns_ % kTurnsPerLook != 0) [[likely]] return true;
        if (turns_ % kTurnsPerYield == 0) ::sched_yield();
        return deadline_ns_ == 0 || monotonic_ns() < deadline_ns_;
    }

  private:
    static constexpr uint32_t kTurnsPerLook = 64;     // some microseconds
    static constexpr uint32_t kTurnsPerYield = 1024;  // some tens of microseconds

    uint64_t deadline_ns_;
    uint32_t turns_ = 0;
};

}  // namespace rfaas
