// call-package <library> <function> <output capacity>: calls one function of a native package as a
// worker would, with standard input as its input, and writes what it returns to standard output.
#include <dlfcn.h>
#include <rfaas/function.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

void* aligned(size_t alignment, size_t bytes) {
    return std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
}

int64_t call(void* library, const char* name, const std::vector<char>& input, void* output,
             size_t capacity, char* error, uint32_t error_capacity) {
    void* copy = aligned(64, input.size());
    std::memcpy(copy, input.data(), input.size());
    const auto* table = static_cast<const rfaas_function_table*>(dlsym(library, "rfaas_functions"));
    if (table == nullptr) {
        using Legacy = uint32_t (*)(void*, uint32_t, void*);
        const auto legacy = reinterpret_cast<Legacy>(dlsym(library, name));
        if (legacy != nullptr) return legacy(copy, static_cast<uint32_t>(input.size()), output);
    } else if (table->abi == RFAAS_FUNCTION_ABI) {
        rfaas_context context = {};
        context.abi = RFAAS_FUNCTION_ABI;
        context.error = error;
        context.error_capacity = error_capacity;
        for (uint32_t i = 0; i < table->count; ++i) {
            if (std::strcmp(table->entries[i].name, name) != 0) continue;
            return table->entries[i].call(copy, input.size(), output, capacity, &context);
        }
    }
    std::snprintf(error, error_capacity, "no function '%s'", name);
    return RFAAS_ERROR;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    std::vector<char> input;
    char block[65536];
    for (size_t n; (n = std::fread(block, 1, sizeof(block), stdin)) > 0;) {
        input.insert(input.end(), block, block + n);
    }
    const size_t capacity = std::strtoul(argv[3], nullptr, 10);
    void* output = aligned(4096, capacity);
    char error[256] = "";
    const int64_t written = call(library, argv[2], input, output, capacity, error, sizeof(error));
    if (written < 0) {
        std::fprintf(stderr, "%lld %s\n", static_cast<long long>(written), error);
        return 1;
    }
    return std::fwrite(output, 1, static_cast<size_t>(written), stdout) ==
                   static_cast<size_t>(written)
               ? 0
               : 2;
}
