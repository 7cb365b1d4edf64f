// The floor: two processes that bounce a write-with-immediate over a provider, and nothing else.
// What rfaas adds to a call is measured against this, with the same bytes, on the same machine.
//
//   rfaas-floor [--provider shm|verbs] [--device NAME] [--address ADDRESS] [--bytes N]
//               [--count N] [--warmup N] [--client-core N] [--server-core N]
//
// Prints one line of JSON: round trips in ns.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/affinity.h"
#include "core/time.h"
#include "fabric/fabric.h"

using namespace rfaas;

namespace {

struct Options {
    std::string provider = "shm";
    std::string device;
    std::string address;
    uint32_t bytes = 8;
    uint32_t count = 100'000;
    uint32_t warmup = 10'000;
    int client_core = -1;
    int server_core = -1;
};

[[noreturn]] void die(const std::string& what, int rc = 0) {
    std::fprintf(stderr, "rfaas-floor: %s%s%s\n", what.c_str(), rc < 0 ? ": " : "",
                 rc < 0 ? std::strerror(-rc) : "");
    std::exit(1);
}

void check(int rc, const char* what) {
    if (rc < 0) die(what, rc);
}

// One side: a region that the peer writes to, a queue pair, and receives to spare.
struct Endpoint {
    explicit Endpoint(const Options& options) : options_(options) {
        std::string reason;
        const int rc = fabric::open_device(options.provider, options.device, &device, &reason);
        if (rc < 0) die("provider " + options.provider + ": " + reason, rc);
        check(device->create_completion_queue(4 * kDepth, &queue), "create_completion_queue");
        check(device->allocate(std::max<size_t>(2 * size_t{options.bytes}, 4096),
                               fabric::kRemoteWrite, &region),
              "allocate");
        inline_bytes = std::min(device->info().max_inline_bytes, options.bytes);
        if (options.bytes > device->info().max_inline_bytes) inline_bytes = 0;
    }

    [[nodiscard]] fabric::QueuePairOptions queue_pair_options() const {
        fabric::QueuePairOptions result;
        result.send_queue = queue.get();
        result.receive_queue = queue.get();
        result.send_depth = kDepth;
        result.receive_depth = kDepth;
        result.inline_bytes = inline_bytes;
        return result;
    }

    void post_receives(uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) check(pair->post_receive({}), "post_receive");
    }

    std::vector<uint8_t> await_event(fabric::ConnectionEvent wanted) {
        const uint64_t deadline = monotonic_ns() + 10'000'000'000;
        std::vector<uint8_t> data;
        while (monotonic_ns() < deadline) {
            const fabric::ConnectionEvent event = pair->next_event(&data);
            if (event == wanted) return data;
            if (event != fabric::ConnectionEvent::kNone) die("the connection was refused");
        }
        die("no connection within 10 s");
    }

    // Sends the peer `bytes` from the upper half of our region to the begin of theirs.
    void send() {
        fabric::SendRequest request;
        request.opcode = fabric::Opcode::kWriteImm;
        if (inline_bytes != 0) request.flags |= fabric::kInline;
        if (++sent % (kDepth / 2) == 0) request.flags |= fabric::kSignaled;
        request.segment_count = 1;
        request.segments[0] = {region->data() + options_.bytes, options_.bytes, region.get()};
        request.remote_address = peer.address;
        request.rkey = peer.rkey;
        check(pair->post_send(request), "post_send");
    }

    void receive() {
        fabric::Completion completion[8];
        for (bool received = false; !received;) {
            const int count = queue->poll(completion, 8);
            check(count, "poll");
            for (int i = 0; i < count; ++i) {
                if (completion[i].status != fabric::Status::kSuccess) die("the peer is gone");
                received |= completion[i].opcode == fabric::Opcode::kReceiveWrite;
            }
            if (count == 0) cpu_relax();
        }
        check(pair->post_receive({}), "post_receive");
    }

    static constexpr uint32_t kDepth = 64;
    const Options& options_;
    std::unique_ptr<fabric::Device> device;
    std::unique_ptr<fabric::CompletionQueue> queue;
    std::unique_ptr<fabric::MemoryRegion> region;
    std::unique_ptr<fabric::QueuePair> pair;
    fabric::RemoteKey peer;
    uint32_t inline_bytes = 0;
    uint64_t sent = 0;
};

void serve(const Options& options, int report) {
    if (options.server_core >= 0) check(pin_to_core(options.server_core), "--server-core");
    Endpoint self(options);
    std::unique_ptr<fabric::Listener> listener;
    check(self.device->listen(options.address, 1, &listener), "listen");
    const std::string bound = listener->address() + "\n";
    if (::write(report, bound.data(), bound.size()) < 0) die("pipe", -errno);
    std::unique_ptr<fabric::ConnectionRequest> request;
    while (listener->next(&request) == -EAGAIN) ::usleep(100);
    check(request->prepare(self.queue_pair_options(), &self.pair), "prepare");
    self.post_receives(Endpoint::kDepth);
    std::memcpy(&self.peer, request->private_data().data(), sizeof self.peer);
    const fabric::RemoteKey key = self.region->remote_key();
    check(request->accept(self.pair.get(), &key, sizeof key), "accept");
    self.await_event(fabric::ConnectionEvent::kEstablished);
    for (uint32_t i = 0; i < options.warmup + options.count; ++i) {
        self.receive();
        self.send();
    }
    // The last reply may still be on its way: leave when the client has.
    std::vector<uint8_t> data;
    fabric::Completion completion;
    while (self.pair->next_event(&data) != fabric::ConnectionEvent::kDisconnected) {
        (void)self.queue->poll(&completion, 1);
    }
}

void measure(const Options& options, const std::string& address) {
    if (options.client_core >= 0) check(pin_to_core(options.client_core), "--client-core");
    Endpoint self(options);
    const fabric::RemoteKey key = self.region->remote_key();
    check(self.device->connect(address, self.queue_pair_options(), &key, sizeof key, &self.pair),
          "connect");
    self.post_receives(Endpoint::kDepth);
    const auto data = self.await_event(fabric::ConnectionEvent::kEstablished);
    if (data.size() < sizeof self.peer) die("short private data");
    std::memcpy(&self.peer, data.data(), sizeof self.peer);

    std::vector<uint64_t> times(options.count);
    for (uint32_t i = 0; i < options.warmup + options.count; ++i) {
        const uint64_t begin = monotonic_ns();
        self.send();
        self.receive();
        const uint64_t end = monotonic_ns();
        if (i >= options.warmup) times[i - options.warmup] = end - begin;
    }
    std::sort(times.begin(), times.end());
    const auto at = [&](double fraction) {
        return times[std::min<size_t>(
            times.size() - 1, static_cast<size_t>(fraction * static_cast<double>(times.size())))];
    };
    std::printf("{\"provider\":\"%s\",\"payloadBytes\":%u,\"samples\":%zu,\"minNs\":%" PRIu64
                ",\"p50Ns\":%" PRIu64 ",\"p90Ns\":%" PRIu64 ",\"p99Ns\":%" PRIu64
                ",\"p999Ns\":%" PRIu64 ",\"maxNs\":%" PRIu64 "}\n",
                options.provider.c_str(), options.bytes, times.size(), times.front(), at(0.5),
                at(0.9), at(0.99), at(0.999), times.back());
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i += 2) {
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
        else if (flag == "--client-core")
            options.client_core = static_cast<int>(n);
        else if (flag == "--server-core")
            options.server_core = static_cast<int>(n);
        else
            die("unknown flag " + flag);
    }
    if (options.count == 0) die("--count is 0, must be at least 1");
    return options;
}

}  // namespace

int main(int argc, char** argv) {
    Options options = parse(argc, argv);
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
        serve(options, report[1]);
        return 0;
    }
    ::close(report[1]);
    std::string address;
    char byte = 0;
    while (::read(report[0], &byte, 1) == 1 && byte != '\n') address += byte;
    if (!address.empty()) measure(options, address);
    int status = 0;
    ::waitpid(server, &status, 0);
    if (!folder.empty()) ::rmdir(folder.c_str());
    return address.empty() || status != 0 ? 1 : 0;
}
