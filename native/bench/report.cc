#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "bench/modes.h"

namespace rfaas::bench {

void report_times(const Options& options, std::vector<uint64_t> times) {
    std::sort(times.begin(), times.end());
    const auto at = [&](double fraction) {
        return times[std::min<size_t>(
            times.size() - 1, static_cast<size_t>(fraction * static_cast<double>(times.size())))];
    };
    std::printf("{\"provider\":\"%s\",\"payloadBytes\":%u,\"samples\":%zu,\"minNs\":%" PRIu64
                ",\"p50Ns\":%" PRIu64 ",\"p90Ns\":%" PRIu64 ",\"p99Ns\":%" PRIu64
                ",\"p999Ns\":%" PRIu64 ",\"maxNs\":%" PRIu64 ",\"times\":[",
                options.provider.c_str(), options.bytes, times.size(), times.front(), at(0.5),
                at(0.9), at(0.99), at(0.999), times.back());
    for (size_t i = 0; i < times.size();) {
        const size_t first = i;
        while (i < times.size() && times[i] == times[first]) ++i;
        std::printf("%s[%" PRIu64 ",%zu]", first == 0 ? "" : ",", times[first], i - first);
    }
    std::printf("]}\n");
}

}  // namespace rfaas::bench
