// rfaas-floor: what a machine and a provider can do without rfaas. What rfaas adds to a call is
// measured against this, with the same bytes, on the same cores.
//
//   rfaas-floor [MODE] [--provider shm|verbs] [--device NAME] [--address ADDRESS] [--bytes N]
//               [--count N] [--warmup N] [--depth N] [--echo 0|1] [--client-core N]
//               [--server-core N]
//
//   round-trips  (default) two processes bounce a write-with-immediate; with --echo 1 the server
//                copies what it received to what it sends, as an echo function does
//   stream       the same with --depth messages in flight
//   eventfd      two processes that sleep and wake each other
//   memcpy       copies --bytes on one core
//   burn         copies --bytes for ever on --client-core: a noisy neighbour
//
// Prints one line of JSON, times in ns.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "bench/modes.h"

using namespace rfaas::bench;

namespace {

// Forks the server, learns its address through a pipe, and measures in this process.
int run_pair(Options options, const Sides& sides) {
    std::string folder;
    if (options.address.empty()) {
        if (options.provider == "shm") {
            char name[] = "/tmp/rfaas-floor-XXXXXX";
            if (::mkdtemp(name) == nullptr) die("mkdtemp", -errno);
            folder = name;
            options.address = folder + "/floor.sock";
        } else {
            options.address = "0.0.0.0:0";
        }
    }
    int report[2];
    if (::pipe(report) != 0) die("pipe", -errno);
    const pid_t server = ::fork();
    if (server < 0) die("fork", -errno);
    if (server == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        sides.serve(options, [&](const std::string& address) {
            const std::string line = address + "\n";
            if (::write(report[1], line.data(), line.size()) < 0) die("pipe", -errno);
        });
        return 0;
    }
    ::close(report[1]);
    std::string address;
    char byte = 0;
    while (::read(report[0], &byte, 1) == 1 && byte != '\n') address += byte;
    if (!address.empty()) sides.measure(options, address);
    int status = 0;
    ::waitpid(server, &status, 0);
    if (!folder.empty()) ::rmdir(folder.c_str());
    return address.empty() || status != 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    switch (options.mode) {
        case Mode::kRoundTrips:
            return run_pair(options, round_trips());
        case Mode::kStream:
            return run_pair(options, stream());
        case Mode::kEventFd:
            measure_eventfd(options);
            return 0;
        case Mode::kMemcpy:
            measure_memcpy(options);
            return 0;
        case Mode::kBurn:
            burn(options);
    }
}
