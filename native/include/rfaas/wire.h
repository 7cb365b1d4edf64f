// The bytes that a client and a worker exchange over the fabric. This is their only definition:
// both ends of the protocol are native code (native/invocation), TypeScript sees the constants that
// the addon exports. Little-endian; both ends check magic and version before anything else.
//
// A worker owns `slot_count` slots. A client holds one credit per slot: it may write a request to a
// slot from the moment that the reply to the slot's last request has arrived.
//
// A connection may break while its worker lives. A client comes back with the session of its first
// Hello, and the worker, which has kept the last request and answer of each slot, says in its
// Welcome that it knows the session. Then the client inquires about each request that it has no
// reply to; the worker sends the answer (again), sends it when the call has ended, or says that the
// request never arrived. So no request runs twice and none is lost. Until a slot's inquiry nothing
// is sent for the slot: whatever was sent on the old connection is void.
//
//   request  WRITE_WITH_IMM to the slot:  [ header 32 B | payload ]   immediate: slot
//   inquiry  the same without a payload; of the header only request_id counts.
//            immediate: slot | kInquiry
//   reply    WRITE_WITH_IMM to the output that the header names:  [ result ]
//            immediate: slot | status << 16 | kLastReply if the worker ends now.
//            An error's text goes to the client's control region instead.
//
//   slot     0        32            64                       64 + payload_bytes, rounded up to 64
//            | unused | header      | payload (aligned) ...  |
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace rfaas::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian");

inline constexpr uint32_t kMagic = 0x53614672;  // "rFaS"
inline constexpr uint16_t kVersion = 2;

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
    kWorkerLost = 7,       // the worker ended while the call ran; if a text says so, because of it
    kLeaseRevoked = 8,     // the lease is being revoked, running calls finish; this one did not run
    kNotReceived = 9       // to an inquiry: the request did not arrive, did not run and will not
};

// Private data of the connection request. InfiniBand leaves 56 bytes for it.
struct Hello {
    uint32_t magic = kMagic;
    uint16_t version = kVersion;
    uint16_t reserved = 0;
    uint64_t session = 0;               // random, one for the client's whole life
    uint8_t ticket[kTicketBytes] = {};  // the secret of this worker, from the executor manager
};
static_assert(sizeof(Hello) == 48 && std::is_trivially_copyable_v<Hello>);

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
    uint32_t resumed = 0;  // 1: the worker knows the session, the client may inquire
    Region slots;          // slot i begins at address + i * slot_stride(payload_bytes)
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
    uint64_t request_id = 0;     // from 1; grows with every request of a session
    uint64_t output_offset = 0;  // from the begin of the region
    uint32_t output_capacity = 0;
    uint32_t payload_length = 0;  // must be what arrived
    uint32_t timeout_us = 0;      // from arrival; 0: none
    uint16_t function = 0;        // index in the package's list
    uint16_t region = 0;          // where the result goes
};
static_assert(sizeof(RequestHeader) == 32 && std::is_trivially_copyable_v<RequestHeader>);
static_assert(offsetof(RequestHeader, function) == 28);

// The same bytes, put together in registers for copy_words() (core/copy.h).
using RequestWords = std::array<uint64_t, sizeof(RequestHeader) / sizeof(uint64_t)>;
constexpr RequestWords words_of(const RequestHeader& header) {
    return {header.request_id, header.output_offset,
            header.output_capacity | uint64_t{header.payload_length} << 32,
            header.timeout_us | uint64_t{header.function} << 32 | uint64_t{header.region} << 48};
}
static_assert(std::bit_cast<RequestWords>(RequestHeader{1, 2, 3, 4, 5, 6, 7}) ==
              words_of({1, 2, 3, 4, 5, 6, 7}));

inline constexpr uint32_t kHeaderOffset = kSlotAlignment - sizeof(RequestHeader);
inline constexpr uint32_t kPayloadOffset = kSlotAlignment;

constexpr uint64_t slot_stride(uint64_t payload_bytes) {
    return kPayloadOffset + (payload_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

// In a request's immediate.
inline constexpr uint32_t kInquiry = 1u << 31;

// In a reply's immediate: the worker is about to end. Every call that had started is answered by
// now; whatever else it was sent has not run and will not.
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
