// What a worker tells of its calls.
#include "invocation/call_stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace rfaas::invocation {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

uint64_t number_in(const std::string& line, const std::string& name) {
    const size_t at = line.find("\"" + name + "\":");
    return at == std::string::npos
               ? UINT64_MAX
               : std::strtoull(line.c_str() + at + name.size() + 3, nullptr, 10);
}

TEST(CallStats, CountsEachCallOnce) {
    CallStats stats;
    EXPECT_FALSE(stats.due(100 * kSecond)) << "there is nothing to tell";
    for (uint32_t call = 0; call < 1000; ++call) {
        stats.arrived(call % 4, 100 * kSecond);
        stats.answered(call % 4);
    }
    ASSERT_TRUE(stats.due(100 * kSecond));
    EXPECT_EQ(number_in(stats.tell(100 * kSecond), "calls"), 1000u);
    stats.arrived(0, 100 * kSecond);
    stats.answered(0);
    EXPECT_FALSE(stats.due(101 * kSecond - 1)) << "once a second is enough";
    ASSERT_TRUE(stats.due(101 * kSecond));
    EXPECT_EQ(number_in(stats.tell(101 * kSecond), "calls"), 1u);
    EXPECT_FALSE(stats.due(200 * kSecond));
}

TEST(CallStats, TimesEachOfFewCallsAndSomeOfMany) {
    CallStats stats;
    stats.arrived(3, 5 * kSecond);
    stats.answered(3);
    EXPECT_NE(number_in(stats.tell(5 * kSecond), "p50Ns"), UINT64_MAX);
    stats.arrived(3, 6 * kSecond);
    stats.answered(2);  // of another call, whose time nobody took
    EXPECT_EQ(number_in(stats.tell(6 * kSecond), "p50Ns"), UINT64_MAX);
}

TEST(CallStats, PercentilesAreAtMostAQuarterTooHigh) {
    for (const uint64_t ns : {1ull, 5ull, 900ull, 123'456ull, 7'000'000'000ull}) {
        CallStats stats;
        for (int call = 0; call < 98; ++call) stats.took(ns);
        for (int call = 0; call < 2; ++call) stats.took(100 * ns);
        const std::string line = stats.tell(kSecond);
        for (const auto& [name, value] : {std::pair{"p50Ns", ns}, {"p99Ns", 100 * ns}}) {
            const uint64_t told = number_in(line, name);
            EXPECT_GE(told, value);
            EXPECT_LE(told, std::max<uint64_t>(value + value / 4 + 1, 5)) << name << " of " << line;
        }
    }
}

}  // namespace
}  // namespace rfaas::invocation
