// What two shm endpoints share: the layout of an inbound queue and the messages of their socket.
// Every byte of it can be rewritten by a hostile peer at any time: copy, then check, then use.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace rfaas::fabric::shm {

inline constexpr uint32_t kMagic = 0x6d685372;  // "rShm"
inline constexpr uint16_t kVersion = 1;

// Two lines: adjacent-line prefetchers fetch pairs, so one line apart is still false sharing.
inline constexpr size_t kLine = 128;

inline constexpr uint32_t kMaxDepth = 16384;
inline constexpr uint32_t kMaxRegions = 4096;  // of one device
inline constexpr uint32_t kRegionIndexMask = kMaxRegions - 1;
inline constexpr uint32_t kBounceBytes = 256 * 1024;
inline constexpr uint32_t kFragmentBytes = 64 * 1024;
inline constexpr size_t kDescriptorBytes = 256;
inline constexpr size_t kInlineBytes = kDescriptorBytes - 24;
inline constexpr uint32_t kMaxRequestPrivate = 48;  // no more than RDMA's connection manager has
inline constexpr uint32_t kMaxReplyPrivate = 192;

// Valid when its lap is the reader's lap; the tag is the last word that the writer stores. Payloads
// of up to 40 bytes travel in the same cache line as the tag: one transfer for a small message.
struct alignas(kDescriptorBytes) Descriptor {
    std::atomic<uint32_t> tag;  // lap << 8 | flags << 4 | Opcode
    uint32_t immediate;
    uint32_t byte_length;  // of the whole message
    uint32_t rkey;
    uint64_t address;  // kWriteImm: where; sends: byte offset in the bounce area
    uint8_t bytes[kInlineBytes];
};
static_assert(sizeof(Descriptor) == kDescriptorBytes && offsetof(Descriptor, bytes) == 24);

inline constexpr uint32_t kTagInline = 1 << 4;   // payload is in `bytes`
inline constexpr uint32_t kTagMore = 1 << 5;     // another fragment of this send follows
inline constexpr uint32_t kTagTooLong = 1 << 6;  // the send did not fit; the receive fails
// `depth` is a power of two: a division would be a tenth of what a message costs.
constexpr uint32_t lap_tag(uint64_t position, uint32_t depth) {
    return (static_cast<uint32_t>(position >> std::countr_zero(depth)) + 1) << 8;
}

// The head of an inbound queue. The receiver owns the memory; `w:` names who writes a field.
struct QueueControl {
    alignas(kLine) std::atomic<uint64_t> consumed;  // w: receiver. Descriptors taken
    alignas(kLine) std::atomic<uint64_t> receives;  // w: receiver. Receives ever posted
    alignas(kLine) std::atomic<uint32_t> sleeping;  // w: both. 1: wake me through the socket
    alignas(kLine) std::atomic<uint32_t> starved;   // w: both. 1: the sender waits for receives
};
static_assert(sizeof(QueueControl) == 4 * kLine);

// Geometry of an inbound queue, as the peer announces it: depths are powers of two.
struct QueueShape {
    uint32_t ring_depth = 0;
    uint32_t receive_depth = 0;

    [[nodiscard]] bool valid() const {
        const auto power = [](uint32_t n) { return n >= 1 && n <= kMaxDepth && !(n & (n - 1)); };
        return power(ring_depth) && power(receive_depth);
    }
    [[nodiscard]] size_t lengths_offset() const { return sizeof(QueueControl); }
    [[nodiscard]] size_t ring_offset() const {
        const size_t end = lengths_offset() + size_t{receive_depth} * sizeof(uint32_t);
        return (end + kDescriptorBytes - 1) / kDescriptorBytes * kDescriptorBytes;
    }
    [[nodiscard]] size_t bounce_offset() const {
        return ring_offset() + size_t{ring_depth} * sizeof(Descriptor);
    }
    [[nodiscard]] size_t bytes() const { return bounce_offset() + kBounceBytes; }
};

// Which keys of a device are valid now; peers map it read-only. Zero: none of that index.
struct KeyTable {
    std::atomic<uint32_t> keys[kMaxRegions];
};

enum class MessageType : uint16_t { kHello = 1, kWelcome, kRefuse, kRegion, kRegionGone, kWake };

// One packet of the SOCK_SEQPACKET socket. Hello and welcome carry two descriptors (inbound queue,
// key table), a region carries one.
struct Message {
    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    MessageType type = MessageType::kWake;
    QueueShape shape;
    uint32_t private_bytes = 0;
    uint32_t rkey = 0;
    uint32_t access = 0;
    uint32_t reserved = 0;
    uint64_t address = 0;
    uint64_t length = 0;
    uint8_t private_data[kMaxReplyPrivate] = {};
};
static_assert(sizeof(Message) == 48 + kMaxReplyPrivate);

}  // namespace rfaas::fabric::shm
