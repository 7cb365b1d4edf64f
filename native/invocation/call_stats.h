// How many calls a worker has answered, and how long some of them took from arrival to answer: told
// to the executor manager about once a second, for people to look at. Used by the worker's thread
// alone.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>

#include "core/time.h"

namespace rfaas::invocation {

class CallStats {
  public:
    // `now_ns` may be coarse.
    void arrived(uint32_t slot, uint64_t now_ns) {
        // Reading the clock twice costs a tenth of a small call: one in 64 is timed, and each when
        // there are few.
        if ((++arrived_ & 63) != 0 && now_ns - timed_ns_ < kSparseNs) [[likely]]
            return;
        timed_ns_ = now_ns;
        timed_slot_ = slot;
        since_ns_ = monotonic_ns();
    }

    void answered(uint32_t slot) {
        ++answered_;
        if (slot != timed_slot_) [[likely]]
            return;
        timed_slot_ = kNone;
        took(monotonic_ns() - since_ns_);
    }

    // A call that was timed.
    void took(uint64_t ns) {
        ++times_[bucket_of(ns)];
        ++timed_;
    }

    // Something is new, and the last word about it a while ago.
    [[nodiscard]] bool due(uint64_t now_ns) const {
        return answered_ != told_ && now_ns - told_ns_ >= kTellNs;
    }

    // The event for the executor manager; percentiles are of what was timed since the one before.
    [[nodiscard]] std::string tell(uint64_t now_ns) {
        std::string line = "{\"event\":\"served\",\"calls\":" + std::to_string(answered_ - told_);
        if (timed_ != 0) {
            line += ",\"p50Ns\":" + std::to_string(percentile(0.50)) +
                    ",\"p99Ns\":" + std::to_string(percentile(0.99));
        }
        told_ = answered_;
        told_ns_ = now_ns;
        times_.fill(0);
        timed_ = 0;
        return line + "}";
    }

  private:
    static constexpr uint64_t kTellNs = 1'000'000'000;
    static constexpr uint64_t kSparseNs = 10'000'000;
    static constexpr uint32_t kNone = UINT32_MAX;
    // Four for each power of two: a percentile is at most a quarter too high.
    static constexpr uint32_t kBuckets = 4 * 64;

    static uint32_t bucket_of(uint64_t ns) {
        const uint64_t value = std::max<uint64_t>(ns, 4);
        const auto power = static_cast<uint32_t>(std::bit_width(value)) - 1;
        return power * 4 + static_cast<uint32_t>((value >> (power - 2)) & 3);
    }

    // The upper end of the bucket in which that share is reached.
    [[nodiscard]] uint64_t percentile(double share) const {
        const auto wanted = static_cast<uint64_t>(share * static_cast<double>(timed_));
        uint64_t seen = 0;
        for (uint32_t bucket = 0; bucket < kBuckets; ++bucket) {
            seen += times_[bucket];
            if (seen <= wanted) continue;
            const uint32_t power = bucket / 4;
            return (uint64_t{5} + bucket % 4) << (power - 2);
        }
        return 0;
    }

    uint64_t arrived_ = 0, answered_ = 0, told_ = 0, told_ns_ = 0;
    uint64_t timed_ns_ = 0, since_ns_ = 0, timed_ = 0;
    uint32_t timed_slot_ = kNone;
    std::array<uint32_t, kBuckets> times_ = {};
};

}  // namespace rfaas::invocation
