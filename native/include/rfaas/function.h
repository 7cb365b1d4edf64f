/* The C ABI between rfaas and a native function package (a shared library). C99 and C++.
 *
 *     #include <rfaas/function.h>
 *
 *     static int64_t echo(const void* input, size_t input_bytes, void* output,
 *                         size_t output_capacity, rfaas_context* context) {
 *         if (input_bytes > output_capacity) return RFAAS_OUTPUT_TOO_SMALL;
 *         memcpy(output, input, input_bytes);
 *         return (int64_t)input_bytes;
 *     }
 *
 *     RFAAS_FUNCTIONS({"echo", echo})
 *
 * Build with: c++ -O2 -shared -fPIC -I "$(npx rfaas include)" -o libecho.so echo.cc
 *
 * A library without this table is taken for one that was built for the original rFaaS: each
 * function that it exports is called as  uint32_t f(void* input, uint32_t input_bytes, void*
 * output) and returns the bytes that it wrote. It cannot know the capacity of its output; a page
 * that cannot be touched lies behind the worker's buffer.
 */
#ifndef RFAAS_FUNCTION_H
#define RFAAS_FUNCTION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RFAAS_FUNCTION_ABI 1

/* Return values below zero. */
#define RFAAS_ERROR (-1)            /* the call fails; the caller gets context->error */
#define RFAAS_OUTPUT_TOO_SMALL (-2) /* the caller is told that its output does not fit */

/* Belongs to the worker and is valid during the call. Later versions only append fields. */
typedef struct rfaas_context {
    uint32_t abi;            /* RFAAS_FUNCTION_ABI of the worker */
    uint32_t worker;         /* index of this worker in its lease, from 0 */
    uint64_t request_id;     /* unique per connection */
    uint64_t deadline_ns;    /* CLOCK_MONOTONIC; 0: none. The worker is restarted when it passes */
    char* error;             /* write a NUL-terminated message here before returning RFAAS_ERROR */
    uint32_t error_capacity; /* bytes at `error`, the NUL included */
    uint32_t reserved;
} rfaas_context;

/* Called on one thread, one call at a time. `input` is aligned to 64 bytes, `output` to a page.
 * Returns the bytes written to `output` (at most `output_capacity`) or a negative value above. */
typedef int64_t (*rfaas_function)(const void* input, size_t input_bytes, void* output,
                                  size_t output_capacity, rfaas_context* context);

typedef struct rfaas_function_entry {
    const char* name; /* 1 to 127 bytes, unique in the package */
    rfaas_function call;
} rfaas_function_entry;

typedef struct rfaas_function_table {
    uint32_t abi;
    uint32_t count;
    const rfaas_function_entry* entries;
} rfaas_function_table;

#define RFAAS_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
#define RFAAS_EXTERN extern "C" RFAAS_EXPORT
#else
#define RFAAS_EXTERN extern RFAAS_EXPORT
#endif

/* RFAAS_FUNCTIONS({"a", a}, {"b", b}): once per package, at file scope. */
#define RFAAS_FUNCTIONS(...)                                                              \
    static const rfaas_function_entry rfaas_function_entries_[] = {__VA_ARGS__};          \
    RFAAS_EXTERN const rfaas_function_table rfaas_functions;                              \
    const rfaas_function_table rfaas_functions = {                                        \
        RFAAS_FUNCTION_ABI,                                                               \
        (uint32_t)(sizeof(rfaas_function_entries_) / sizeof(rfaas_function_entries_[0])), \
        rfaas_function_entries_};

#ifdef __cplusplus
}
#endif

#endif /* RFAAS_FUNCTION_H */
