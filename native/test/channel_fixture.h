// A client and a worker of the invocation protocol in two threads over shm: what the tests of the
// channels are written with.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "core/time.h"
#include "core/unique_fd.h"
#include "invocation/client_channel.h"
#include "invocation/worker_channel.h"

namespace rfaas::invocation {

inline constexpr uint64_t kPatienceNs = 20'000'000'000;
inline constexpr uint32_t kSlots = 8;
inline constexpr uint32_t kPayload = 64 * 1024;
inline constexpr uint32_t kOutput = 32 * 1024;

enum Function : uint32_t { kEcho, kFail, kHold, kLong, kDeadlineOf, kKeep, kLast, kFunctions };

inline std::string
text_of_failure() {  // 256 bytes and more, with a 3-byte character across the limit
    return std::string(255, 'x') + "\u20ac and what follows";
}

// A worker on a thread of its own. Counters may be read from outside.
class WorkerThread final : public WorkerEvents {
  public:
    explicit WorkerThread(std::string path) : channel_(this) {
        options_.provider = "shm";
        options_.address = std::move(path);
        options_.slots = kSlots;
        options_.payload_bytes = kPayload;
        options_.output_bytes = kOutput;
        options_.function_count = kFunctions;
        std::memset(options_.ticket, 7, sizeof options_.ticket);
        EXPECT_EQ(::ftruncate(started_.get(), sizeof(uint64_t)), 0);
        options_.started_fd = ::dup(started_.get());
        std::string reason;
        EXPECT_EQ(channel_.open(options_, &reason), 0) << reason;
        thread_ = std::thread([this] { run(); });
    }
    ~WorkerThread() override { stop(); }

    void stop() {
        stop_.store(true);
        if (thread_.joinable()) thread_.join();
    }
    void release() { held_.store(false); }
    void hold() { held_.store(true); }
    void finish_kept() { finishing_.store(true); }
    void refuse() { refusing_.store(true); }
    // The worker stays where it has let a client in and done nothing else since.
    void linger(bool on) { lingering_.store(on); }

    [[nodiscard]] const std::string& path() const { return options_.address; }
    [[nodiscard]] std::vector<std::string> refusals() {
        const std::lock_guard lock(mutex_);
        return refusals_;
    }
    [[nodiscard]] uint64_t last_started() const {
        uint64_t id = ~uint64_t{0};
        EXPECT_EQ(::pread(started_.get(), &id, sizeof id, 0), static_cast<ssize_t>(sizeof id));
        return id;
    }
    std::atomic<int> clients{0};  // that are connected now
    std::atomic<uint64_t> calls{0};

  private:
    void connected(const std::string&) override {
        ++clients;
        while (lingering_.load() && !stop_.load()) std::this_thread::yield();
    }
    void disconnected() override { --clients; }
    void served(const std::string&) override {}
    void refused(const std::string&, std::string_view why) override {
        const std::lock_guard lock(mutex_);
        refusals_.emplace_back(why);
    }

    void run() {
        Call call;
        while (!stop_.load()) {
            if (refusing_.load()) channel_.refuse(wire::CallStatus::kLeaseRevoked);
            const int rc = channel_.next(&call, 1'000'000);
            if (rc < 0) break;
            if (rc == 1) serve(call);
            if (finishing_.exchange(false)) channel_.reply(kept_, 0);
        }
        channel_.refuse(wire::CallStatus::kLeaseEnded);
        (void)channel_.next(&call, 0);
        channel_.settle();
    }

    void serve(const Call& call) {
        ++calls;
        switch (call.function) {
            case kEcho:
                std::memcpy(call.output, call.input,
                            std::min(call.input_length, call.output_capacity));
                return channel_.reply(call.slot, call.input_length);
            case kFail:
                return channel_.fail(call.slot, wire::CallStatus::kFunctionError,
                                     text_of_failure());
            case kHold:
                while (held_.load() && !stop_.load()) std::this_thread::yield();
                return channel_.reply(call.slot, 0);
            case kLong:
                return channel_.reply(call.slot, kOutput + 1);
            case kKeep:  // as a function that is still at work when its worker takes the next call
                kept_ = call.slot;
                return;
            case kLast:
                channel_.fail_last(call.slot, wire::CallStatus::kWorkerLost, "it had to end");
                stop_.store(true);
                return;
            default: {
                const uint64_t left = call.deadline_ns == 0 ? 0 : call.deadline_ns - monotonic_ns();
                std::memcpy(call.output, &left, sizeof left);
                return channel_.reply(call.slot, sizeof left);
            }
        }
    }

    UniqueFd started_{::memfd_create("started", MFD_CLOEXEC)};
    WorkerOptions options_;
    WorkerChannel channel_;
    std::mutex mutex_;
    std::vector<std::string> refusals_;
    std::atomic<bool> stop_{false};
    std::atomic<bool> held_{true};
    std::atomic<bool> finishing_{false};
    std::atomic<bool> refusing_{false};
    std::atomic<bool> lingering_{false};
    uint32_t kept_ = 0;  // the last slot of kKeep
    std::thread thread_;
};

class ChannelTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/rfaas-channel-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        folder_ = name;
        worker_ = std::make_unique<WorkerThread>(folder_ + "/worker");
        std::string reason;
        ASSERT_EQ(fabric::open_device("shm", "", &device_, &reason), 0) << reason;
        ASSERT_EQ(device_->allocate(kBytes, fabric::kRemoteWrite, &memory_), 0);
        client_ = std::make_unique<ClientChannel>(
            device_.get(), ClientChannel::Limits{.workers = 1, .slots = kSlots});
        ASSERT_EQ(client_->open(), 0);
        const int index = client_->add_region(memory_.get());
        ASSERT_GT(index, 0);
        region_ = static_cast<uint32_t>(index);
        std::memset(ticket_, 7, sizeof ticket_);
    }

    void TearDown() override {
        client_.reset();
        worker_.reset();
        memory_.reset();
        device_.reset();
        std::filesystem::remove_all(folder_);
    }

    static bool eventually(const std::function<bool()>& done) {
        const uint64_t limit = monotonic_ns() + kPatienceNs;
        while (!done()) {
            if (monotonic_ns() > limit) return false;
            std::this_thread::yield();
        }
        return true;
    }

    ConnectProgress connect(ClientChannel& client, std::string* reason) {
        EXPECT_EQ(client.connect(0, worker_->path(), ticket_), 0);
        return finish_connecting(client, reason);
    }

    ConnectProgress finish_connecting(ClientChannel& client, std::string* reason) {
        ConnectProgress progress = ConnectProgress::kPending;
        EXPECT_TRUE(eventually([&] {
            progress = client.connect_step(0, reason);
            return progress != ConnectProgress::kPending;
        }));
        return progress;
    }

    void connect() {
        std::string reason;
        ASSERT_EQ(connect(*client_, &reason), ConnectProgress::kConnected) << reason;
    }

    // Sends, and makes progress until the worker has taken the call.
    void start(const CallRequest& request) {
        const uint64_t calls = worker_->calls.load() + 1;
        ASSERT_EQ(client_->submit(request), 0);
        CallOutcome none;
        ASSERT_TRUE(eventually(
            [&] { return worker_->calls.load() == calls || client_->poll(&none, 1) != 0; }));
        ASSERT_EQ(worker_->calls.load(), calls);
    }

    [[nodiscard]] CallRequest request(uint32_t function, uint32_t slot = 0,
                                      uint32_t bytes = 16) const {
        CallRequest call;
        call.slot = slot;
        call.function = function;
        call.input_region = call.output_region = region_;
        call.input_offset = slot * kArea;
        call.input_length = bytes;
        call.output_offset = slot * kArea + kArea / 2;
        call.output_capacity = kArea / 2;
        return call;
    }

    CallOutcome call(const CallRequest& request) {
        CallOutcome outcome;
        outcome.status = 99;
        Spinner spinner(kPatienceNs);
        EXPECT_EQ(client_->call(request, &spinner, &outcome), 0);
        return outcome;
    }

    CallOutcome take() {
        CallOutcome outcome;
        outcome.status = 99;
        EXPECT_TRUE(eventually([&] { return client_->poll(&outcome, 1) == 1; }));
        return outcome;
    }

    static uint32_t number(wire::CallStatus status) { return static_cast<uint32_t>(status); }

    static constexpr size_t kArea = 128 * 1024;
    static constexpr size_t kBytes = kSlots * kArea;
    std::string folder_;
    std::unique_ptr<WorkerThread> worker_;
    std::unique_ptr<fabric::Device> device_;
    std::unique_ptr<fabric::MemoryRegion> memory_;
    std::unique_ptr<ClientChannel> client_;
    uint32_t region_ = 0;
    uint8_t ticket_[wire::kTicketBytes];
};

}  // namespace rfaas::invocation
