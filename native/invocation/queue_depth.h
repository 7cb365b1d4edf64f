// How deep both ends of a connection make their queues.
#pragma once

#include <algorithm>
#include <cstdint>

namespace rfaas::invocation {

// Receives that are taken are posted again so many at a time: each post takes a lock, and on a NIC
// writes to a record that the device reads.
constexpr uint32_t kReceiveBatch = 16;

// One receive for each slot, and those that wait to be posted again. A sender that has used up the
// receives that it knows of reads the peer's count: so deep, a small call pays a 64th of it.
constexpr uint32_t receive_depth(uint32_t slots) {
    return std::max<uint32_t>(slots + kReceiveBatch, 64);
}

// Sends of which one is signalled, because a completion has to be taken, too.
constexpr uint32_t sends_per_signal(uint32_t slots) {
    return std::max<uint32_t>(slots, 64);
}

constexpr uint32_t send_depth(uint32_t slots) {
    return 2 * sends_per_signal(slots) + 16;
}

}  // namespace rfaas::invocation
