// A fuzzer's input as a script: bytes are taken off its front as whatever the target needs next.
// What is missing at the end is zero, so that every input is a valid script and a small change of
// it is a small change of what happens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>

// What must hold whatever the script says. A failure is a finding like a sanitizer's.
#define FUZZ_CHECK(held)                                                                   \
    do {                                                                                   \
        if (!(held)) {                                                                     \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #held); \
            std::abort();                                                                  \
        }                                                                                  \
    } while (false)

namespace rfaas::fuzz {

class Script {
  public:
    Script(const uint8_t* data, size_t bytes) : next_(data), left_(bytes) {}

    [[nodiscard]] bool more() const { return left_ != 0; }

    template <typename T>
    T take() {
        static_assert(std::is_trivially_copyable_v<T>);
        T value = {};
        copy(&value, sizeof value);
        return value;
    }
    // One of 0..choices-1.
    uint32_t choose(uint32_t choices) { return take<uint8_t>() % choices; }

    // Overwrites some bytes of `object` at places that the script names.
    template <typename T>
    void patch(T* object) {
        static_assert(std::is_trivially_copyable_v<T>);
        for (uint32_t patches = choose(4); patches != 0; --patches) {
            uint8_t bytes[8] = {};
            const size_t at = take<uint8_t>() % sizeof(T);
            const size_t length = std::min<size_t>(1u << choose(4), sizeof(T) - at);
            copy(bytes, length);
            std::memcpy(reinterpret_cast<uint8_t*>(object) + at, bytes, length);
        }
    }

    void copy(void* to, size_t bytes) {
        const size_t part = std::min(bytes, left_);
        if (part != 0) std::memcpy(to, next_, part);
        next_ += part;
        left_ -= part;
    }

    // All that is left.
    std::string rest() {
        std::string text(reinterpret_cast<const char*>(next_), left_);
        left_ = 0;
        return text;
    }

  private:
    const uint8_t* next_;
    size_t left_;
};

// A folder of this process for its sockets, removed at its end.
inline const std::string& folder() {
    static const struct Folder {
        std::string path = "/tmp/rfaas-fuzz-XXXXXX";
        Folder() { FUZZ_CHECK(::mkdtemp(path.data()) != nullptr); }
        ~Folder() { std::filesystem::remove_all(path); }
    } folder;
    return folder.path;
}

}  // namespace rfaas::fuzz
