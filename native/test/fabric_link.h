// Two connected queue pairs in one process, and waiting for them with deadlines: what the fabric
// tests are written with.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/time.h"
#include "fabric/fabric.h"

namespace rfaas::fabric {

inline constexpr int kPatienceMs = 20'000;  // emulated machines are slow; nothing waits this long

struct Event {
    ConnectionEvent type = ConnectionEvent::kNone;
    std::vector<uint8_t> data;
    [[nodiscard]] std::string text() const { return {data.begin(), data.end()}; }
};

// Polls `done` until it is true. The bodies of tests say what they waited for.
inline bool eventually(const std::function<bool()>& done, int patience_ms = kPatienceMs) {
    const uint64_t limit = monotonic_ns() + uint64_t(patience_ms) * 1'000'000;
    while (!done()) {
        if (monotonic_ns() > limit) return false;
    }
    return true;
}

inline bool readable(int fd, int timeout_ms) {
    pollfd entry = {fd, POLLIN, 0};
    return ::poll(&entry, 1, timeout_ms) == 1;
}

// Sleeps on fd() as a caller would, so that an event that does not make it readable fails the test.
inline Event next_event(QueuePair& pair) {
    Event event;
    const uint64_t limit = monotonic_ns() + uint64_t{kPatienceMs} * 1'000'000;
    while (event.type == ConnectionEvent::kNone && monotonic_ns() < limit) {
        if (!readable(pair.fd(), kPatienceMs)) break;
        event.type = pair.next_event(&event.data);
    }
    return event;
}

// One process's side: a device, a completion queue for both ways, and memory.
struct Side {
    std::unique_ptr<Device> device;
    std::unique_ptr<CompletionQueue> queue;
    std::unique_ptr<MemoryRegion> region;
    std::unique_ptr<QueuePair> pair;
    std::vector<Completion> seen;
    Side* other =
        nullptr;  // of this process too: who waits polls for both (see poll() in fabric.h)

    static constexpr size_t kBytes = 1 << 20;
    static constexpr uint32_t kDepth = 16;

    int open(const std::string& provider, uint32_t access, std::string* reason) {
        int rc = open_device(provider, "", &device, reason);
        if (rc == 0) rc = device->create_completion_queue(4 * kDepth, &queue);
        if (rc == 0) rc = device->allocate(kBytes, access, &region);
        return rc;
    }

    [[nodiscard]] QueuePairOptions options() const {
        QueuePairOptions result;
        result.send_queue = result.receive_queue = queue.get();
        result.send_depth = result.receive_depth = kDepth;
        result.inline_bytes = std::min<uint32_t>(64, device->info().max_inline_bytes);
        return result;
    }

    [[nodiscard]] Segment segment(size_t offset, uint32_t length) const {
        return {region->data() + offset, length, region.get()};
    }

    // A signalled request of one segment; the rest is the test's to fill in.
    [[nodiscard]] SendRequest request(Opcode opcode, size_t offset, uint32_t length) const {
        SendRequest result;
        result.opcode = opcode;
        result.flags = kSignaled;
        result.segment_count = length == 0 ? 0 : 1;
        if (length != 0) result.segments[0] = segment(offset, length);
        return result;
    }

    void poll() {
        Completion batch[8];
        const int count = queue->poll(batch, 8);
        ASSERT_GE(count, 0);
        seen.insert(seen.end(), batch, batch + count);
    }

    // The next completion, in order. Status kFatal and id ~0: none came.
    Completion take() {
        const bool came = eventually([&] {
            if (seen.empty()) poll();
            if (seen.empty() && other != nullptr) other->poll();
            return !seen.empty();
        });
        if (!came) {
            Completion none;
            none.id = ~uint64_t{0};
            none.status = Status::kFatal;
            return none;
        }
        const Completion first = seen.front();
        seen.erase(seen.begin());
        return first;
    }

    void post_receives(uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) {
            ReceiveRequest receive;
            receive.id = 1000 + i;
            ASSERT_EQ(pair->post_receive(receive), 0);
        }
    }
};

class FabricTest : public testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        std::string reason;
        const uint32_t all = kRemoteWrite | kRemoteRead | kRemoteAtomic;
        const int rc = client_.open(GetParam(), all, &reason);
        const char* required = std::getenv("RFAAS_REQUIRE");
        if (rc != 0 && required != nullptr && GetParam() == required) {
            FAIL() << GetParam() << " is required: " << reason;
        }
        if (rc != 0) GTEST_SKIP() << GetParam() << ": " << reason;
        ASSERT_EQ(server_.open(GetParam(), all, &reason), 0) << reason;
        client_.other = &server_;
        server_.other = &client_;
        if (GetParam() == "shm") {
            char name[] = "/tmp/rfaas-fabric-XXXXXX";
            ASSERT_NE(::mkdtemp(name), nullptr);
            folder_ = name;
        }
    }

    void TearDown() override {
        client_.pair.reset();
        server_.pair.reset();
        listener_.reset();
        if (!folder_.empty()) std::filesystem::remove_all(folder_);
    }

    [[nodiscard]] std::string fresh_address() {
        return folder_.empty() ? "0.0.0.0:0" : folder_ + "/" + std::to_string(++sockets_);
    }

    void listen() { ASSERT_EQ(server_.device->listen(fresh_address(), 8, &listener_), 0); }

    void start_connecting(const std::vector<uint8_t>& data = {}) {
        ASSERT_EQ(client_.device->connect(listener_->address(), client_.options(), data.data(),
                                          data.size(), &client_.pair),
                  0);
    }

    // The server's next request, while the client makes progress too.
    void await_request(std::unique_ptr<ConnectionRequest>* out) {
        ASSERT_TRUE(eventually([&] {
            std::vector<uint8_t> none;
            EXPECT_EQ(client_.pair->next_event(&none), ConnectionEvent::kNone);
            return listener_->next(out) == 0;
        })) << "no connection request";
    }

    void connect() { connect(client_.options(), server_.options()); }

    void connect(const QueuePairOptions& client, const QueuePairOptions& server) {
        if (!listener_) listen();
        ASSERT_EQ(client_.device->connect(listener_->address(), client, nullptr, 0, &client_.pair),
                  0);
        std::unique_ptr<ConnectionRequest> request;
        ASSERT_NO_FATAL_FAILURE(await_request(&request));
        ASSERT_EQ(request->prepare(server, &server_.pair), 0);
        ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
        ASSERT_EQ(next_event(*client_.pair).type, ConnectionEvent::kEstablished);
        ASSERT_EQ(next_event(*server_.pair).type, ConnectionEvent::kEstablished);
    }

    [[nodiscard]] SendRequest to_server(SendRequest request, size_t offset) const {
        request.remote_address = server_.region->remote_key().address + offset;
        request.rkey = server_.region->remote_key().rkey;
        return request;
    }

    // A peer in a process of its own: this program again, with --peer (see fabric_test.cc).
    [[nodiscard]] pid_t start_peer(const std::string& address) const {
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::execl("/proc/self/exe", "fabric_test", "--peer", GetParam().c_str(), address.c_str(),
                    nullptr);
            ::_exit(127);
        }
        return pid;
    }

    Side client_, server_;
    std::unique_ptr<Listener> listener_;
    std::string folder_;
    int sockets_ = 0;
};

}  // namespace rfaas::fabric
