// The records through which the data path crosses, batches at a time. TypeScript fills and reads
// them at the offsets that module.cc exports as `constants`, so these structs are the only
// definition. 64-bit fields are two 32-bit halves to JavaScript (no BigInt on this path).
#pragma once

#include <cstdint>
#include <type_traits>

#include "fabric/fabric.h"

namespace rfaas::addon {

inline constexpr uint32_t kBatch = 64;             // records of each kind in a queue pair's buffer
inline constexpr uint32_t kCompletionBatch = 256;  // most completions of one poll
inline constexpr uint32_t kNoRegion = 0xffffffff;
inline constexpr uint32_t kStagedRegion = 0xfffffffe;  // the bytes are in the staging area

struct SegmentRecord {
    uint32_t region;  // MemoryRegion index of the device, kNoRegion or kStagedRegion
    uint32_t length;
    uint64_t offset;  // from the begin of the region or of the staging area
};
static_assert(sizeof(SegmentRecord) == 16);

struct SendRecord {
    uint64_t id;
    uint8_t opcode;
    uint8_t flags;
    uint8_t segment_count;
    uint8_t reserved;
    uint32_t immediate;
    SegmentRecord segments[2];
    uint64_t remote_address;
    uint64_t rkey;
    uint64_t compare_add;
    uint64_t swap;
};
static_assert(sizeof(SendRecord) == 80 && std::is_trivially_copyable_v<SendRecord>);

struct ReceiveRecord {
    uint64_t id;
    SegmentRecord segment;
};
static_assert(sizeof(ReceiveRecord) == 24 && std::is_trivially_copyable_v<ReceiveRecord>);

// Completions cross as they are.
static_assert(std::is_trivially_copyable_v<fabric::Completion>);

// A queue pair's buffer: send records, receive records, then one staging slot of inline_bytes()
// for each send record.
inline constexpr uint32_t kReceiveRecords = kBatch * sizeof(SendRecord);
inline constexpr uint32_t kStagingArea = kReceiveRecords + kBatch * sizeof(ReceiveRecord);

}  // namespace rfaas::addon
