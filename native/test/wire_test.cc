// The wire format against golden bytes that were written down once, in a file that the TypeScript
// tests read as well. A change here is a new protocol version.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "rfaas/wire.h"

namespace rfaas::wire {

namespace {

// The value of `key` inside the object `section` of the vectors: as much of JSON as they use.
std::string golden(const std::string& section, const std::string& key) {
    std::ifstream file(RFAAS_SOURCE_DIR "/test/unit/wire-vectors.json");
    std::stringstream text;
    text << file.rdbuf();
    const std::string all = text.str();
    size_t at = all.find("\"" + section + "\":");
    if (at == std::string::npos) return "no section " + section;
    const size_t end = all.find('}', at);
    const std::string name = "\"" + key + "\":";
    at = all.find(name, at);
    if (at == std::string::npos || at > end) return "no key " + key;
    at = all.find_first_not_of(" \"", at + name.size());
    return all.substr(at, all.find_first_of("\",\n} ", at) - at);
}

template <typename T>
std::string hex(const T& value) {
    static constexpr char kDigits[] = "0123456789abcdef";
    uint8_t bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    std::string out;
    for (const uint8_t byte : bytes) {
        out += kDigits[byte >> 4];
        out += kDigits[byte & 15];
    }
    return out;
}

}  // namespace

TEST(Wire, StructsAreTheGoldenBytes) {
    Hello hello;
    hello.session = 0xfedcba9876543210;
    for (uint8_t i = 0; i < kTicketBytes; ++i) hello.ticket[i] = i;
    EXPECT_EQ(hex(hello), golden("structs", "hello"));

    Refusal refusal;
    refusal.reason = static_cast<uint16_t>(RefusalReason::kBadTicket);
    EXPECT_EQ(hex(refusal), golden("structs", "refusal"));

    const Region region = {0x1122334455667788, 65536, 0xbaadf00d};
    EXPECT_EQ(hex(region), golden("structs", "region"));

    Welcome welcome;
    welcome.slot_count = 8;
    welcome.payload_bytes = 1 << 20;
    welcome.output_bytes = 1 << 19;
    welcome.function_count = 3;
    welcome.resumed = 1;
    welcome.slots = {0x1122334455667788, 8 * slot_stride(1 << 20), 0x1234};
    welcome.regions = {0x99aabbccddeeff00, kMaxRegions * sizeof(Region), 0x5678};
    EXPECT_EQ(hex(welcome), golden("structs", "welcome"));

    RequestHeader request;
    request.request_id = 0x0123456789abcdef;
    request.output_offset = 16;
    request.output_capacity = 4096;
    request.payload_length = 7;
    request.timeout_us = 100'000;
    request.function = 2;
    request.region = 255;
    EXPECT_EQ(hex(request), golden("structs", "request"));
}

TEST(Wire, ConstantsAreTheGoldenOnes) {
    const std::pair<const char*, uint64_t> constants[] = {
        {"magic", kMagic},
        {"version", kVersion},
        {"maxSlots", kMaxSlots},
        {"maxRegions", kMaxRegions},
        {"errorTextBytes", kErrorTextBytes},
        {"ticketBytes", kTicketBytes},
        {"headerOffset", kHeaderOffset},
        {"payloadOffset", kPayloadOffset},
    };
    for (const auto& [name, value] : constants) {
        EXPECT_EQ(std::to_string(value), golden("constants", name)) << name;
    }
}

TEST(Wire, CallStatusesKeepTheirNumbers) {
    const std::pair<const char*, CallStatus> statuses[] = {
        {"ok", CallStatus::kOk},
        {"functionError", CallStatus::kFunctionError},
        {"unknownFunction", CallStatus::kUnknownFunction},
        {"outputTooSmall", CallStatus::kOutputTooSmall},
        {"deadline", CallStatus::kDeadline},
        {"leaseEnded", CallStatus::kLeaseEnded},
        {"badRequest", CallStatus::kBadRequest},
        {"workerLost", CallStatus::kWorkerLost},
        {"leaseRevoked", CallStatus::kLeaseRevoked},
        {"notReceived", CallStatus::kNotReceived},
    };
    for (const auto& [name, status] : statuses) {
        EXPECT_EQ(std::to_string(static_cast<int>(status)), golden("callStatuses", name)) << name;
    }
}

TEST(Wire, SlotsAndImmediatesAreComputedAsWrittenDown) {
    for (const uint64_t payload : {1, 64, 65, 1048576}) {
        EXPECT_EQ(std::to_string(slot_stride(payload)),
                  golden("slotStrides", std::to_string(payload)));
    }
    const std::pair<const char*, uint32_t> immediates[] = {
        {"slot 0, ok", reply_immediate(0, CallStatus::kOk)},
        {"slot 5, deadline", reply_immediate(5, CallStatus::kDeadline)},
        {"slot 1023, badRequest", reply_immediate(1023, CallStatus::kBadRequest)},
    };
    for (const auto& [name, immediate] : immediates) {
        EXPECT_EQ(std::to_string(immediate), golden("replyImmediates", name)) << name;
    }
    EXPECT_EQ(std::to_string(5 | kInquiry), golden("requestImmediates", "inquiry, slot 5"));
    EXPECT_EQ(reply_slot(reply_immediate(1023, CallStatus::kBadRequest)), 1023u);
    EXPECT_EQ(reply_status(reply_immediate(1023, CallStatus::kBadRequest)), 6u);
}

}  // namespace rfaas::wire
