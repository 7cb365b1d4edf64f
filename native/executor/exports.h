// What a shared library exports, read from the bytes of its file: a file that is cut off or not for
// this machine is told apart before the system's loader, which trusts it, runs any of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

namespace rfaas::executor {

inline constexpr size_t kMaxName = 127;         // of a function
inline constexpr size_t kMaxFunctions = 65536;  // the wire's index has 16 bits

// The names of all functions that the library itself defines and exports, those that are too long
// left out; it stops behind kMaxFunctions. False: `reason` says what is wrong with the file.
[[nodiscard]] bool read_exports(const uint8_t* file, size_t bytes, std::set<std::string>* names,
                                std::string* reason);

}  // namespace rfaas::executor
