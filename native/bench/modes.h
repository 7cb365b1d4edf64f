// What rfaas-floor measures. Each mode prints one line of JSON.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/options.h"

namespace rfaas::bench {

// Both sides of a fabric connection, in two processes. The server tells its address when it
// listens.
struct Sides {
    std::function<void(const Options&, std::function<void(const std::string&)> listening)> serve;
    std::function<void(const Options&, const std::string& address)> measure;
};

// One message after the other: the floor of a call's latency.
[[nodiscard]] Sides round_trips();
// `depth` messages in flight, each answered by one: the floor of calls per second.
[[nodiscard]] Sides stream();

// Two processes that wake each other through eventfds: the floor of a warm call.
void measure_eventfd(const Options& options);
// One core that copies `bytes` from one place to another.
void measure_memcpy(const Options& options);
// A noisy neighbour: copies memory until it is killed.
[[noreturn]] void burn(const Options& options);

// All times, in ns, sorted and run-length encoded, and their percentiles.
void report_times(const Options& options, std::vector<uint64_t> times);

}  // namespace rfaas::bench
