// How deep both ends of a connection make their queues.
#pragma once

#include <algorithm>
#include <cstdint>

namespace rfaas::invocation {

// Receives posted, and sends of which one is signalled; there is room for twice as many sends. With
// one for each slot it would do, but a sender that has used up the receives that it knows of reads
// the peer's count, and a signalled send has a completion to take: so deep, a small call pays a
// 64th of either.
constexpr uint32_t queue_depth(uint32_t slots) {
    return std::max<uint32_t>(slots, 64);
}

constexpr uint32_t send_depth(uint32_t slots) {
    return 2 * queue_depth(slots) + 16;
}

}  // namespace rfaas::invocation
