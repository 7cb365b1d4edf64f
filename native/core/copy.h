// Copies of a few bytes that were stored a moment ago.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rfaas {

template <typename Word>
inline void copy_word(uint8_t*& to, const uint8_t*& from) {
    Word word;
    std::memcpy(&word, from, sizeof word);
    asm("" : "+r"(word));  // or the compiler would make wide loads of several of these
    std::memcpy(to, &word, sizeof word);
    to += sizeof word;
    from += sizeof word;
}

// In words of 8 bytes, where memcpy() takes 16 or 32 at a time. A processor hands a load the bytes
// of a store that is still on its way to the cache only if all of them come from that one store;
// if not, the load waits until the store has left, which is behind every earlier one to a line
// that another core holds: some hundred cycles in the middle of a call.
inline void copy_words(void* target, const void* source, size_t bytes) {
    constexpr size_t kMost = 64;
    if (bytes > kMost) {
        std::memcpy(target, source, bytes);
        return;
    }
    auto* to = static_cast<uint8_t*>(target);
    const auto* from = static_cast<const uint8_t*>(source);
    for (; bytes >= sizeof(uint64_t); bytes -= sizeof(uint64_t)) copy_word<uint64_t>(to, from);
    if ((bytes & 4) != 0) copy_word<uint32_t>(to, from);
    if ((bytes & 2) != 0) copy_word<uint16_t>(to, from);
    if ((bytes & 1) != 0) *to = *from;
}

}  // namespace rfaas
