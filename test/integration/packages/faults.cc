// A function for each way in which a function can go wrong, and some that go right.
#include <dirent.h>
#include <rfaas/function.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

namespace {

int64_t echo(const void* input, size_t input_bytes, void* output, size_t capacity, rfaas_context*) {
    if (input_bytes > capacity) return RFAAS_OUTPUT_TOO_SMALL;
    std::memcpy(output, input, input_bytes);
    return static_cast<int64_t>(input_bytes);
}

int64_t nothing(const void*, size_t, void*, size_t, rfaas_context*) {
    return 0;
}

int64_t worker(const void*, size_t, void* output, size_t, rfaas_context* context) {
    std::memcpy(output, &context->worker, sizeof context->worker);
    return sizeof context->worker;
}

// Which run this is, on which worker: a run whose answer nobody got leaves a gap.
int64_t count(const void*, size_t, void* output, size_t, rfaas_context* context) {
    static uint32_t runs = 0;
    const uint32_t result[] = {context->worker, ++runs};
    std::memcpy(output, result, sizeof result);
    return sizeof result;
}

// What this process has open, a line each.
int64_t descriptors(const void*, size_t, void* output, size_t capacity, rfaas_context*) {
    DIR* folder = ::opendir("/proc/self/fd");
    if (folder == nullptr) return RFAAS_ERROR;
    std::string lines;
    while (const dirent* entry = ::readdir(folder)) {
        char target[4096];
        const ssize_t length = ::readlinkat(::dirfd(folder), entry->d_name, target, sizeof target);
        if (length > 0) lines.append(target, static_cast<size_t>(length)) += '\n';
    }
    ::closedir(folder);
    if (lines.size() > capacity) return RFAAS_OUTPUT_TOO_SMALL;
    std::memcpy(output, lines.data(), lines.size());
    return static_cast<int64_t>(lines.size());
}

int64_t fails(const void*, size_t, void*, size_t, rfaas_context* context) {
    std::snprintf(context->error, context->error_capacity, "the matrix is singular");
    return RFAAS_ERROR;
}

int64_t fails_silently(const void*, size_t, void*, size_t, rfaas_context*) {
    return RFAAS_ERROR;
}

int64_t too_much(const void*, size_t, void*, size_t capacity, rfaas_context*) {
    return static_cast<int64_t>(capacity) + 1;
}

int64_t crash(const void*, size_t, void*, size_t, rfaas_context*) {
    *reinterpret_cast<volatile int*>(8) = 1;
    return 0;
}

int64_t abort_it(const void*, size_t, void*, size_t, rfaas_context*) {
    std::abort();
}

int64_t exit_it(const void*, size_t, void*, size_t, rfaas_context*) {
    std::exit(3);
}

int64_t vanish(const void*, size_t, void*, size_t, rfaas_context*) {
    ::_exit(5);
}

int64_t overrun(const void*, size_t, void* output, size_t capacity, rfaas_context*) {
    std::memset(output, 1, capacity + (1 << 20));
    return 0;
}

int64_t loop(const void*, size_t, void*, size_t, rfaas_context*) {
    static volatile int turns;
    for (;;) {
        turns = 1;
    }
}

// Takes as many MiB as the input says, uses them and never gives them back.
int64_t allocate(const void* input, size_t input_bytes, void*, size_t, rfaas_context*) {
    uint32_t mebibytes = 0;
    if (input_bytes != sizeof mebibytes) return RFAAS_ERROR;
    std::memcpy(&mebibytes, input, sizeof mebibytes);
    const size_t bytes = size_t{mebibytes} << 20;
    auto* memory = static_cast<volatile char*>(std::malloc(bytes));
    if (memory == nullptr) return RFAAS_ERROR;
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    return 0;
}

// Sleeps for the milliseconds that the input says.
int64_t sleep_ms(const void* input, size_t input_bytes, void*, size_t, rfaas_context*) {
    uint32_t milliseconds = 0;
    if (input_bytes != sizeof milliseconds) return RFAAS_ERROR;
    std::memcpy(&milliseconds, input, sizeof milliseconds);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    return 0;
}

// Adds a byte to the file that the input names behind its first four bytes, then sleeps for the
// milliseconds that those say. What a file holds tells how often the function ran.
int64_t mark(const void* input, size_t input_bytes, void*, size_t, rfaas_context*) {
    uint32_t milliseconds = 0;
    if (input_bytes < sizeof milliseconds) return RFAAS_ERROR;
    std::memcpy(&milliseconds, input, sizeof milliseconds);
    const std::string path(static_cast<const char*>(input) + sizeof milliseconds,
                           input_bytes - sizeof milliseconds);
    std::FILE* file = std::fopen(path.c_str(), "a");
    if (file == nullptr || std::fputc('x', file) == EOF || std::fclose(file) != 0) {
        return RFAAS_ERROR;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    return 0;
}

}  // namespace

RFAAS_FUNCTIONS({"echo", echo}, {"nothing", nothing}, {"worker", worker},
                {"descriptors", descriptors}, {"fails", fails}, {"fails_silently", fails_silently},
                {"too_much", too_much}, {"crash", crash}, {"abort", abort_it}, {"exit", exit_it},
                {"vanish", vanish}, {"overrun", overrun}, {"loop", loop}, {"sleep_ms", sleep_ms},
                {"mark", mark}, {"allocate", allocate}, {"count", count})
