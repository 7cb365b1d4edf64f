// The bytes that a client and a worker exchange over the fabric. This is their only definition:
// both ends of the protocol are native code (native/invocation), TypeScript sees the constants that
// the addon exports. Little-endian; both ends check magic and version before anything else.
//
// A worker owns `slot_count` slots. A client holds one credit per slot: it may write a request to a
// slot from the moment that the reply to the slot's last request has arrived.
//
//   request  WRITE_WITH_IMM to the slot:  [ header 32 B | payload ]   immediate: slot
//   reply    WRITE_WITH_IMM to the output that the header names:  [ result ]
//            immediate: slot | status << 16 | kLastReply if the worker ends now.
//            An error's text goes to the client's control region instead.
//
//   slot     0        32            64                       64 + payload_bytes, rounded up to 64
//            | unused | header      | payload (aligned) ...  |
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace rfaas::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian");

inline constexpr uint32_t kMagic = 0x53614672;  // "rFaS"
inline constexpr uint16_t kVersion = 1;

inline constexpr uint32_t kMaxSlots = 1024;
inline constexpr uint32_t kMaxRegions = 256;      // outputs regions that a client can name
inline constexpr uint16_t kControlRegion = 0;     // the client's texts of errors, one per slot
inline constexpr uint32_t kErrorTextBytes = 256;  // per slot, no NUL
inline constexpr size_t kTicketBytes = 32;
inline constexpr uint32_t kSlotAlignment = 64;

// How a call ended. The numbers are wire format: append only.
enum class CallStatus : uint8_t {
    kOk = 0,
    kFunctionError = 1,    // the function said so; its text is in the control region
    kUnknownFunction = 2,  // no function of that index
    kOutputTooSmall = 3,   // the result is longer than the output capacity
    kDeadline = 4,         // the deadline passed before or while it ran
    kLeaseEnded = 5,       // the worker is being shut down; the call did not run
    kBadRequest = 6,       // the header made no sense; the call did not run
    kWorkerLost = 7,   // the function took its worker down; also what a client reports for calls
                       // whose connection is gone
    kLeaseRevoked = 8  // the lease is being revoked, running calls finish; this one did not run
};

// Private data of the connection request. InfiniBand leaves 56 bytes for it.
struct Hello {
    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    uint16_t reserved = 0;
    uint8_t ticket[kTicketBytes] = {};  // the secret of this worker, from the executor manager
};
static_assert(sizeof(Hello) == 40 && std::is_trivially_copyable_v<Hello>);

struct Region {  // fabric::RemoteKey
    uint64_t address = 0;
    uint64_t length = 0;
    uint64_t rkey = 0;
};
static_assert(sizeof(Region) == 24);

// Private data of the accepted connection.
struct Welcome {
    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    uint16_t slot_count = 0;
    uint32_t payload_bytes = 0;  // the longest payload that a slot takes
    uint32_t output_bytes = 0;   // the longest result that the worker can make
    uint32_t function_count = 0;
    uint32_t reserved = 0;
    Region slots;    // slot i begins at address + i * slot_stride(payload_bytes)
    Region regions;  // kMaxRegions Regions; the client WRITEs entry r before it names region r
};
static_assert(sizeof(Welcome) == 72 && std::is_trivially_copyable_v<Welcome>);

enum class RefusalReason : uint16_t { kBadMagic = 1, kBadVersion = 2, kBadTicket = 3, kBusy = 4 };

struct Refusal {  // private data of a rejected connection
    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    uint16_t reason = 0;
};
static_assert(sizeof(Refusal) == 8);

struct RequestHeader {
    uint64_t request_id = 0;
    uint64_t output_offset = 0;  // from the begin of the region
    uint32_t output_capacity = 0;
    uint32_t payload_length = 0;  // must be what arrived
    uint32_t timeout_us = 0;      // from arrival; 0: none
    uint16_t function = 0;        // index in the package's list
    uint16_t region = 0;          // where the result goes
};
static_assert(sizeof(RequestHeader) == 32 && std::is_trivially_copyable_v<RequestHeader>);
static_assert(offsetof(RequestHeader, function) == 28);

inline constexpr uint32_t kHeaderOffset = kSlotAlignment - sizeof(RequestHeader);
inline constexpr uint32_t kPayloadOffset = kSlotAlignment;

constexpr uint64_t slot_stride(uint64_t payload_bytes) {
    return kPayloadOffset + (payload_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

// In a reply: the worker is about to end, whatever else it was sent is lost. Without this a client
// would go on sending to it until its connection breaks.
inline constexpr uint32_t kLastReply = 1u << 31;

constexpr uint32_t reply_immediate(uint32_t slot, CallStatus status) {
    return slot | static_cast<uint32_t>(status) << 16;
}
constexpr uint32_t reply_slot(uint32_t immediate) {
    return immediate & 0xffff;
}
constexpr uint32_t reply_status(uint32_t immediate) {
    return immediate >> 16 & 0xff;
}

}  // namespace rfaas::wire
