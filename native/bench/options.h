// What rfaas-floor is asked to do, and how it ends when it cannot.
#pragma once

#include <cstdint>
#include <string>

namespace rfaas::bench {

enum class Mode { kRoundTrips, kStream, kEventFd, kMemcpy, kBurn };

struct Options {
    Mode mode = Mode::kRoundTrips;
    std::string provider = "shm";
    std::string device;
    std::string address;
    uint32_t bytes = 8;
    uint32_t count = 100'000;
    uint32_t warmup = 10'000;
    uint32_t depth = 1;
    bool echo = false;
    int client_core = -1;
    int server_core = -1;
};

[[nodiscard]] Options parse(int argc, char** argv);

// Ends the process; with `rc`, a negative errno, as the reason.
[[noreturn]] void die(const std::string& what, int rc = 0);

inline void check(int rc, const char* what) {
    if (rc < 0) die(what, rc);
}

// Does nothing for core -1.
void pin(int core, const char* flag);

}  // namespace rfaas::bench
