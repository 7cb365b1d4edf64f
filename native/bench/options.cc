#include "bench/options.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/affinity.h"

namespace rfaas::bench {

namespace {

constexpr uint32_t kMostDepth = 1024;

bool parse_mode(const std::string& word, Mode* out) {
    if (word == "round-trips")
        *out = Mode::kRoundTrips;
    else if (word == "stream")
        *out = Mode::kStream;
    else if (word == "eventfd")
        *out = Mode::kEventFd;
    else if (word == "memcpy")
        *out = Mode::kMemcpy;
    else if (word == "burn")
        *out = Mode::kBurn;
    else
        return false;
    return true;
}

}  // namespace

Options parse(int argc, char** argv) {
    Options options;
    int first = 1;
    if (argc > 1 && argv[1][0] != '-') {
        if (!parse_mode(argv[1], &options.mode)) die(std::string("unknown mode ") + argv[1]);
        first = 2;
    }
    for (int i = first; i < argc; i += 2) {
        const std::string flag = argv[i];
        if (i + 1 == argc) die(flag + " needs a value");
        const std::string value = argv[i + 1];
        char* end = nullptr;
        const unsigned long number = std::strtoul(value.c_str(), &end, 10);
        const bool numeric = !value.empty() && *end == '\0' && number <= UINT32_MAX;
        const auto n = static_cast<uint32_t>(number);
        if (flag == "--provider")
            options.provider = value;
        else if (flag == "--device")
            options.device = value;
        else if (flag == "--address")
            options.address = value;
        else if (!numeric)
            die(flag + " is " + value + ", must be a number");
        else if (flag == "--bytes")
            options.bytes = n;
        else if (flag == "--count")
            options.count = n;
        else if (flag == "--warmup")
            options.warmup = n;
        else if (flag == "--depth")
            options.depth = n;
        else if (flag == "--echo")
            options.echo = n != 0;
        else if (flag == "--client-core")
            options.client_core = static_cast<int>(n);
        else if (flag == "--server-core")
            options.server_core = static_cast<int>(n);
        else
            die("unknown flag " + flag);
    }
    if (options.count == 0) die("--count is 0, must be at least 1");
    if (options.depth == 0 || options.depth > kMostDepth) {
        die("--depth must be from 1 to " + std::to_string(kMostDepth));
    }
    return options;
}

void die(const std::string& what, int rc) {
    std::fprintf(stderr, "rfaas-floor: %s%s%s\n", what.c_str(), rc < 0 ? ": " : "",
                 rc < 0 ? std::strerror(-rc) : "");
    std::exit(1);
}

void pin(int core, const char* flag) {
    if (core >= 0) check(pin_to_core(core), flag);
}

}  // namespace rfaas::bench
