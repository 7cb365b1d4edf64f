// The floors of the machine: what waking a process and copying bytes cost without any fabric.
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "bench/modes.h"
#include "core/time.h"

namespace rfaas::bench {

namespace {

int open_eventfd() {
    const int fd = ::eventfd(0, 0);
    if (fd < 0) die("eventfd", -errno);
    return fd;
}

void wake(int fd) {
    const uint64_t one = 1;
    if (::write(fd, &one, sizeof one) != sizeof one) die("eventfd: write", -errno);
}

void sleep_until_woken(int fd) {
    uint64_t value = 0;
    if (::read(fd, &value, sizeof value) != sizeof value) die("eventfd: read", -errno);
}

}  // namespace

void measure_eventfd(const Options& options) {
    const int there = open_eventfd();
    const int back = open_eventfd();
    const uint64_t total = uint64_t{options.warmup} + options.count;
    const pid_t peer = ::fork();
    if (peer < 0) die("fork", -errno);
    if (peer == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(options.server_core, "--server-core");
        for (uint64_t i = 0; i < total; ++i) {
            sleep_until_woken(there);
            wake(back);
        }
        ::_exit(0);
    }
    pin(options.client_core, "--client-core");
    std::vector<uint64_t> times(options.count);
    for (uint64_t i = 0; i < total; ++i) {
        const uint64_t begin = monotonic_ns();
        wake(there);
        sleep_until_woken(back);
        const uint64_t end = monotonic_ns();
        if (i >= options.warmup) times[i - options.warmup] = end - begin;
    }
    int status = 0;
    ::waitpid(peer, &status, 0);
    if (status != 0) die("the other process failed");
    report_times(options, std::move(times));
}

void measure_memcpy(const Options& options) {
    pin(options.client_core, "--client-core");
    std::vector<uint8_t> from(options.bytes, 1);
    std::vector<uint8_t> to(options.bytes, 2);
    std::vector<uint64_t> times(options.count);
    for (uint64_t i = 0; i < uint64_t{options.warmup} + options.count; ++i) {
        const uint64_t begin = monotonic_ns();
        std::memcpy(to.data(), from.data(), from.size());
        // The compiler must not see that nobody looks at the copy.
        asm volatile("" : : "r"(to.data()) : "memory");
        const uint64_t end = monotonic_ns();
        if (i >= options.warmup) times[i - options.warmup] = end - begin;
    }
    report_times(options, std::move(times));
}

void burn(const Options& options) {
    pin(options.client_core, "--client-core");
    std::vector<uint8_t> from(options.bytes, 1);
    std::vector<uint8_t> to(options.bytes, 2);
    for (;;) {
        std::memcpy(to.data(), from.data(), from.size());
        asm volatile("" : : "r"(to.data()) : "memory");
    }
}

}  // namespace rfaas::bench
