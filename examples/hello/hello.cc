// The smallest native function package.
#include <rfaas/function.h>

#include <cstring>

static int64_t hello(const void* name, size_t name_bytes, void* output, size_t output_capacity,
                     rfaas_context*) {
    static const char kGreeting[] = {'H', 'e', 'l', 'l', 'o', ',', ' '};
    if (output_capacity < sizeof(kGreeting) || output_capacity - sizeof(kGreeting) < name_bytes) {
        return RFAAS_OUTPUT_TOO_SMALL;
    }
    std::memcpy(output, kGreeting, sizeof(kGreeting));
    std::memcpy(static_cast<char*>(output) + sizeof(kGreeting), name, name_bytes);
    return static_cast<int64_t>(sizeof(kGreeting) + name_bytes);
}

static int64_t echo(const void* input, size_t input_bytes, void* output, size_t output_capacity,
                    rfaas_context*) {
    if (input_bytes > output_capacity) return RFAAS_OUTPUT_TOO_SMALL;
    std::memcpy(output, input, input_bytes);
    return static_cast<int64_t>(input_bytes);
}

RFAAS_FUNCTIONS({"hello", hello}, {"echo", echo})
