// The floors of a provider: the fabric alone, no protocol, no functions, no JavaScript.
#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "bench/endpoint.h"
#include "bench/modes.h"
#include "core/time.h"

namespace rfaas::bench {

namespace {

constexpr int kBatch = 16;

// Answers every message in its slot, in both modes.
void serve(const Options& options, const std::function<void(const std::string&)>& listening) {
    pin(options.server_core, "--server-core");
    Endpoint self(options);
    self.accept(listening);
    uint64_t left = uint64_t{options.warmup} + options.count;
    uint32_t slots[kBatch];
    while (left != 0) {
        const int received = self.receive(slots, kBatch);
        for (int i = 0; i < received; ++i) {
            if (options.echo) self.echo(slots[i]);
        }
        self.send(slots, received);
        left -= static_cast<uint64_t>(received);
    }
    // The last reply may still be on its way: leave when the client has.
    self.await_end();
}

void measure_round_trips(const Options& options, const std::string& address) {
    pin(options.client_core, "--client-core");
    Endpoint self(options);
    self.connect(address);
    std::vector<uint64_t> times(options.count);
    uint32_t slot = 0;
    for (uint64_t i = 0; i < uint64_t{options.warmup} + options.count; ++i) {
        const uint64_t begin = monotonic_ns();
        self.send(0);
        (void)self.receive(&slot, 1);
        const uint64_t end = monotonic_ns();
        if (i >= options.warmup) times[i - options.warmup] = end - begin;
    }
    report_times(options, std::move(times));
}

// Sends `total` messages, `depth` of them in flight, until all are answered.
void pump(Endpoint& self, uint32_t depth, uint64_t total) {
    uint64_t sent = 0;
    for (uint32_t slot = 0; slot < depth && sent < total; ++slot, ++sent) self.send(slot);
    uint32_t slots[kBatch];
    for (uint64_t received = 0; received < total;) {
        const int count = self.receive(slots, kBatch);
        received += static_cast<uint64_t>(count);
        const auto more = static_cast<int>(std::min<uint64_t>(count, total - sent));
        self.send(slots, more);
        sent += static_cast<uint64_t>(more);
    }
}

void measure_stream(const Options& options, const std::string& address) {
    pin(options.client_core, "--client-core");
    Endpoint self(options);
    self.connect(address);
    pump(self, options.depth, options.warmup);
    const uint64_t begin = monotonic_ns();
    pump(self, options.depth, options.count);
    std::printf(
        "{\"provider\":\"%s\",\"payloadBytes\":%u,\"depth\":%u,\"calls\":%u"
        ",\"elapsedNs\":%" PRIu64 "}\n",
        options.provider.c_str(), options.bytes, options.depth, options.count,
        monotonic_ns() - begin);
}

}  // namespace

Sides round_trips() {
    return {serve, measure_round_trips};
}

Sides stream() {
    return {serve, measure_stream};
}

}  // namespace rfaas::bench
