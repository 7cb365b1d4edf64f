// Packages for the tests of the loader: CMake builds this file once for each way to be right or
// wrong, PACKAGE_<NAME> says which.
#include <rfaas/function.h>

#include <cstring>

#if defined(PACKAGE_LEGACY)

extern "C" {

RFAAS_EXPORT uint32_t zeta(void* input, uint32_t input_bytes, void* output) {
    std::memcpy(output, input, input_bytes);
    return input_bytes;
}

RFAAS_EXPORT uint32_t alpha(void*, uint32_t, void* output) {
    std::memcpy(output, "a", 1);
    return 1;
}

__attribute__((visibility("hidden"))) uint32_t hidden(void*, uint32_t, void*) {
    return 0;
}

RFAAS_EXPORT int exported_data = 7;  // not a function
}

#elif defined(PACKAGE_EMPTY)

extern "C" __attribute__((visibility("hidden"))) int nothing() {
    return 0;
}

#else

namespace {

int64_t echo(const void* input, size_t input_bytes, void* output, size_t capacity, rfaas_context*) {
    if (input_bytes > capacity) return RFAAS_OUTPUT_TOO_SMALL;
    std::memcpy(output, input, input_bytes);
    return static_cast<int64_t>(input_bytes);
}

int64_t fail(const void*, size_t, void*, size_t, rfaas_context* context) {
    std::strncpy(context->error, "it failed", context->error_capacity);
    return RFAAS_ERROR;
}

}  // namespace

#if defined(PACKAGE_TABLE)
// Not in the order of their names: the table's order is what counts.
RFAAS_FUNCTIONS({"fail", fail}, {"echo", echo})
#elif defined(PACKAGE_TWICE)
RFAAS_FUNCTIONS({"echo", echo}, {"echo", fail})
#elif defined(PACKAGE_NO_NAME)
RFAAS_FUNCTIONS({"echo", echo}, {"", fail})
#elif defined(PACKAGE_OVERLONG)
#define TEN "0123456789"
#define SIXTY_FOUR TEN TEN TEN TEN TEN TEN "0123"
RFAAS_FUNCTIONS({SIXTY_FOUR SIXTY_FOUR, echo}, {"fail", fail})
#elif defined(PACKAGE_WRONG_ABI)
static const rfaas_function_entry entries[] = {{"echo", echo}, {"fail", fail}};
RFAAS_EXTERN const rfaas_function_table rfaas_functions;
const rfaas_function_table rfaas_functions = {RFAAS_FUNCTION_ABI + 1, 2, entries};
#endif

#endif
