// A library with the signature of the original rFaaS and without a function table. rfaas loads it
// unchanged: every exported function can be called by its name.
#include <cstdint>
#include <cstring>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// What the original's latency measurements call: the input comes back.
EXPORTED uint32_t empty(void* input, uint32_t input_bytes, void* output) {
    std::memcpy(output, input, input_bytes);
    return input_bytes;
}

// The sum of the input's bytes, as a little-endian uint64.
EXPORTED uint32_t sum(void* input, uint32_t input_bytes, void* output) {
    const auto* bytes = static_cast<const uint8_t*>(input);
    uint64_t total = 0;
    for (uint32_t i = 0; i < input_bytes; ++i) total += bytes[i];
    std::memcpy(output, &total, sizeof(total));
    return sizeof(total);
}
