// Both ends of the invocation protocol, a client and a worker in two threads over shm, and clients
// that break the protocol.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "core/time.h"
#include "invocation/client_channel.h"
#include "invocation/worker_channel.h"

namespace rfaas::invocation {

namespace {

constexpr uint64_t kPatienceNs = 20'000'000'000;
constexpr uint32_t kSlots = 8;
constexpr uint32_t kPayload = 64 * 1024;
constexpr uint32_t kOutput = 32 * 1024;

enum Function : uint32_t { kEcho, kFail, kHold, kLong, kDeadlineOf, kKeep, kFunctions };

std::string text_of_failure() {  // 256 bytes and more, with a 3-byte character across the limit
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

    [[nodiscard]] const std::string& path() const { return options_.address; }
    [[nodiscard]] std::vector<std::string> refusals() {
        const std::lock_guard lock(mutex_);
        return refusals_;
    }
    std::atomic<int> clients{0};  // that are connected now
    std::atomic<uint64_t> calls{0};

  private:
    void connected(const std::string&) override { ++clients; }
    void disconnected() override { --clients; }
    void refused(const std::string&, std::string_view why) override {
        const std::lock_guard lock(mutex_);
        refusals_.emplace_back(why);
    }

    void run() {
        Call call;
        while (!stop_.load()) {
            const int rc = channel_.next(&call, 1'000'000);
            if (rc < 0) break;
            if (rc == 1) serve(call);
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
            case kKeep:
                return;  // as a function that is still at work when its worker takes the next call
            default: {
                const uint64_t left = call.deadline_ns == 0 ? 0 : call.deadline_ns - monotonic_ns();
                std::memcpy(call.output, &left, sizeof left);
                return channel_.reply(call.slot, sizeof left);
            }
        }
    }

    WorkerOptions options_;
    WorkerChannel channel_;
    std::mutex mutex_;
    std::vector<std::string> refusals_;
    std::atomic<bool> stop_{false};
    std::atomic<bool> held_{true};
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
        EXPECT_EQ(client_->call(request, kPatienceNs, &outcome), 0);
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

}  // namespace

// ── calls ───────────────────────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, ResultsOfEverySizeComeBack) {
    connect();
    for (const uint32_t bytes : {0u, 1u, 31u, 200u, 201u, 4096u, kOutput}) {
        for (uint32_t i = 0; i < bytes; ++i)
            memory_->data()[i] = static_cast<uint8_t>(i * 3 + bytes);
        std::memset(memory_->data() + kArea / 2, 0, kArea / 2);
        const CallOutcome outcome = call(request(kEcho, 0, bytes));
        EXPECT_EQ(outcome.status, number(wire::CallStatus::kOk));
        EXPECT_EQ(outcome.length, bytes);
        EXPECT_EQ(std::memcmp(memory_->data(), memory_->data() + kArea / 2, bytes), 0);
        EXPECT_EQ(memory_->data()[kArea / 2 + bytes], 0);
    }
}

TEST_F(ChannelTest, SeventyThousandCallsGoThroughOneConnection) {
    connect();
    for (uint32_t i = 0; i < 70'000; ++i) {
        std::memcpy(memory_->data(), &i, sizeof i);
        const CallOutcome outcome = call(request(kEcho, 0, sizeof i));
        ASSERT_EQ(outcome.status, number(wire::CallStatus::kOk)) << "call " << i;
        ASSERT_EQ(std::memcmp(memory_->data() + kArea / 2, &i, sizeof i), 0) << "call " << i;
    }
    EXPECT_EQ(worker_->calls.load(), 70'000u);
    EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(ChannelTest, AllSlotsAreInFlightAtOnce) {
    connect();
    for (int round = 0; round < 500; ++round) {
        for (uint32_t slot = 0; slot < kSlots; ++slot) {
            std::memset(memory_->data() + slot * kArea, round + static_cast<int>(slot), 300);
            ASSERT_EQ(client_->submit(request(kEcho, slot, 300)), 0);
        }
        EXPECT_EQ(client_->submit(request(kEcho, 3)), -EBUSY);
        uint32_t seen = 0;
        for (uint32_t i = 0; i < kSlots; ++i) {
            const CallOutcome outcome = take();
            ASSERT_EQ(outcome.status, number(wire::CallStatus::kOk));
            seen |= 1u << outcome.slot;
            ASSERT_EQ(memory_->data()[outcome.slot * kArea + kArea / 2 + 299],
                      static_cast<uint8_t>(round + static_cast<int>(outcome.slot)));
        }
        ASSERT_EQ(seen, (1u << kSlots) - 1);
    }
}

TEST_F(ChannelTest, ASlotWhoseCallerStoppedWaitingStaysTakenUntilTheReply) {
    connect();
    CallOutcome outcome;
    ASSERT_EQ(client_->call(request(kHold), 1'000'000, &outcome), 0);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kDeadline));
    EXPECT_EQ(client_->submit(request(kEcho)), -EBUSY);
    worker_->release();
    EXPECT_EQ(take().slot, 0u);
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
}

TEST_F(ChannelTest, TheDeadlineOfACallReachesItsFunction) {
    connect();
    CallRequest with = request(kDeadlineOf);
    with.timeout_us = 5'000'000;
    uint64_t left = 0;
    EXPECT_EQ(call(with).length, sizeof left);
    std::memcpy(&left, memory_->data() + kArea / 2, sizeof left);
    EXPECT_GT(left, 0u);
    EXPECT_LE(left, 5'000'000'000u);
    EXPECT_EQ(call(request(kDeadlineOf)).status, number(wire::CallStatus::kOk));
    std::memcpy(&left, memory_->data() + kArea / 2, sizeof left);
    EXPECT_EQ(left, 0u);
}

// ── calls that fail ─────────────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, TheTextOfAnErrorEndsAtAWholeCharacter) {
    connect();
    const CallOutcome outcome = call(request(kFail, 5));
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kFunctionError));
    EXPECT_EQ(client_->error_text(0, 5, outcome.length), std::string(255, 'x'));
}

TEST_F(ChannelTest, AResultThatDoesNotFitIsAnErrorAndNothingIsWritten) {
    connect();
    std::memset(memory_->data() + kArea / 2, 0x55, 64);
    CallRequest small = request(kEcho, 0, 64);
    small.output_capacity = 63;
    CallOutcome outcome = call(small);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kOutputTooSmall));
    EXPECT_EQ(client_->error_text(0, 0, outcome.length),
              "the result has 64 bytes, the output takes 63");
    for (int i = 0; i < 64; ++i) EXPECT_EQ(memory_->data()[kArea / 2 + i], 0x55);
    outcome = call(request(kLong));
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kOutputTooSmall))
        << "the worker's own limit";
}

TEST_F(ChannelTest, AFunctionThatIsNotThereIsNamed) {
    connect();
    const CallOutcome outcome = call(request(kFunctions));
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kUnknownFunction));
    EXPECT_EQ(client_->error_text(0, 0, outcome.length),
              "the package has 6 functions, none of index 6");
    EXPECT_EQ(client_->submit(request(65'536)), -EINVAL);
}

TEST_F(ChannelTest, CallsThatCannotBeRightAreNotSent) {
    connect();
    EXPECT_EQ(client_->submit(request(kEcho, kSlots)), -EINVAL);
    EXPECT_EQ(client_->submit(request(kEcho, 0, kPayload + 1)), -EMSGSIZE);
    CallRequest bad = request(kEcho);
    bad.input_offset = kBytes - 8;
    EXPECT_EQ(client_->submit(bad), -EINVAL);
    bad = request(kEcho);
    bad.input_region = region_ + 1;
    EXPECT_EQ(client_->submit(bad), -EINVAL);
    bad.input_region = wire::kMaxRegions;
    EXPECT_EQ(client_->submit(bad), -EINVAL);
    EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(ChannelTest, AnOutputOutsideOfItsRegionIsABadRequest) {
    connect();
    CallRequest outside = request(kEcho);
    outside.output_offset = kBytes - 8;
    outside.output_capacity = 9;
    EXPECT_EQ(call(outside).status, number(wire::CallStatus::kBadRequest));
    CallRequest unknown = request(kEcho);
    unknown.output_region = region_ + 1;  // never announced: it has no length
    EXPECT_EQ(call(unknown).status, number(wire::CallStatus::kBadRequest));
    EXPECT_EQ(worker_->calls.load(), 0u);
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
}

// ── regions ─────────────────────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, RegionsCanBeAddedAndRemovedWhileConnected) {
    connect();
    for (int round = 0; round < 300; ++round) {
        std::unique_ptr<fabric::MemoryRegion> extra;
        ASSERT_EQ(device_->allocate(4096, fabric::kRemoteWrite, &extra), 0);
        const int index = client_->add_region(extra.get());
        ASSERT_GT(index, 0) << "round " << round;
        CallRequest into = request(kEcho);
        into.output_region = static_cast<uint32_t>(index);
        into.output_offset = 0;
        into.output_capacity = 4096;
        std::memset(memory_->data(), round, 16);
        ASSERT_EQ(call(into).status, number(wire::CallStatus::kOk));
        ASSERT_EQ(extra->data()[15], static_cast<uint8_t>(round));
        client_->remove_region(static_cast<uint32_t>(index));
        ASSERT_EQ(call(into).status, number(wire::CallStatus::kBadRequest));
    }
}

TEST_F(ChannelTest, RegionsRunOutWithAnError) {
    std::vector<std::unique_ptr<fabric::MemoryRegion>> regions;
    int rc = 0;
    while (rc >= 0 && regions.size() <= wire::kMaxRegions) {
        std::unique_ptr<fabric::MemoryRegion> extra;
        ASSERT_EQ(device_->allocate(4096, fabric::kRemoteWrite, &extra), 0);
        rc = client_->add_region(extra.get());
        regions.push_back(std::move(extra));
    }
    EXPECT_EQ(rc, -ENOSPC);
    EXPECT_EQ(regions.size(), wire::kMaxRegions - 1) << "the control region and the fixture's";
}

// ── connections ─────────────────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, AWrongTicketIsRefused) {
    ticket_[31] ^= 1;
    std::string reason;
    EXPECT_EQ(connect(*client_, &reason), ConnectProgress::kRefused);
    EXPECT_EQ(reason, "the worker does not accept the ticket");
    EXPECT_EQ(worker_->refusals(), std::vector<std::string>{"wrong ticket"});
    ticket_[31] ^= 1;
    connect();
}

TEST_F(ChannelTest, ASecondClientIsRefusedUntilTheFirstIsGone) {
    connect();
    ClientChannel second(device_.get(), {.workers = 1, .slots = 1});
    ASSERT_EQ(second.open(), 0);
    std::string reason;
    EXPECT_EQ(connect(second, &reason), ConnectProgress::kRefused);
    EXPECT_EQ(reason, "the worker has a client already");
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
    client_->disconnect(0);
    EXPECT_TRUE(eventually([&] { return worker_->clients.load() == 0; }));
    EXPECT_EQ(connect(second, &reason), ConnectProgress::kConnected) << reason;
}

TEST_F(ChannelTest, StrangersAreRefusedByMagicAndVersion) {
    const struct {
        uint32_t magic;
        uint16_t version;
        wire::RefusalReason reason;
    } cases[] = {
        {wire::kMagic ^ 1, wire::kVersion, wire::RefusalReason::kBadMagic},
        {wire::kMagic, wire::kVersion + 1, wire::RefusalReason::kBadVersion},
    };
    std::unique_ptr<fabric::CompletionQueue> queue;
    ASSERT_EQ(device_->create_completion_queue(128, &queue), 0);
    for (const auto& [magic, version, reason] : cases) {
        wire::Hello hello;
        hello.magic = magic;
        hello.version = version;
        std::memcpy(hello.ticket, ticket_, sizeof ticket_);
        fabric::QueuePairOptions options;
        options.send_queue = options.receive_queue = queue.get();
        std::unique_ptr<fabric::QueuePair> pair;
        ASSERT_EQ(device_->connect(worker_->path(), options, &hello, sizeof hello, &pair), 0);
        std::vector<uint8_t> data;
        fabric::ConnectionEvent event = fabric::ConnectionEvent::kNone;
        ASSERT_TRUE(eventually([&] {
            event = pair->next_event(&data);
            return event != fabric::ConnectionEvent::kNone;
        }));
        EXPECT_EQ(event, fabric::ConnectionEvent::kRejected);
        wire::Refusal refusal;
        ASSERT_EQ(data.size(), sizeof refusal);
        std::memcpy(&refusal, data.data(), sizeof refusal);
        EXPECT_EQ(refusal.reason, static_cast<uint16_t>(reason));
    }
}

TEST_F(ChannelTest, EveryCallInFlightEndsWhenItsWorkerIsLost) {
    connect();
    worker_->hold();
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
        ASSERT_EQ(client_->submit(request(kHold, slot)), 0);
    }
    // The worker goes without a word to its calls: its end of the connection does.
    std::thread worker_ends([&] { worker_.reset(); });
    uint32_t ended = 0;
    bool down = false;
    while (!down) {
        const CallOutcome outcome = take();
        ASSERT_NE(outcome.status, 99u);
        if (outcome.slot == kWorkerDown) {
            down = true;
        } else {
            ended |= 1u << outcome.slot;
            EXPECT_TRUE(outcome.status == number(wire::CallStatus::kWorkerLost) ||
                        outcome.status == number(wire::CallStatus::kLeaseEnded) ||
                        (outcome.slot == 0 && outcome.status == number(wire::CallStatus::kOk)))
                << outcome.status;
        }
    }
    worker_ends.join();
    EXPECT_EQ(ended, (1u << kSlots) - 1);
    EXPECT_EQ(client_->in_flight(), 0u);
    EXPECT_EQ(client_->submit(request(kEcho)), -ENOTCONN);
}

TEST_F(ChannelTest, AClientThatDisconnectsEndsItsOwnCallsAndMayComeBack) {
    connect();
    for (int round = 0; round < 20; ++round) {
        for (uint32_t slot = 0; slot < kSlots; ++slot) {
            ASSERT_EQ(client_->submit(request(kEcho, slot)), 0);
        }
        client_->disconnect(0);
        EXPECT_EQ(client_->in_flight(), 0u);
        uint32_t ended = 0;
        while (true) {
            const CallOutcome outcome = take();
            ASSERT_EQ(outcome.status, number(wire::CallStatus::kWorkerLost));
            if (outcome.slot == kWorkerDown) break;
            ++ended;
        }
        EXPECT_EQ(ended, kSlots);
        connect();
        ASSERT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
    }
}

// ── hostile clients ─────────────────────────────────────────────────────────────────────────────

namespace {

// A client that writes its requests by hand.
class ForgedRequestTest : public ChannelTest {
  protected:
    void SetUp() override {
        ChannelTest::SetUp();
        ASSERT_EQ(device_->create_completion_queue(256, &queue_), 0);
    }
    void TearDown() override {
        pair_.reset();
        queue_.reset();
        ChannelTest::TearDown();
    }

    void enter() {
        wire::Hello hello;
        std::memcpy(hello.ticket, ticket_, sizeof ticket_);
        fabric::QueuePairOptions options;
        options.send_queue = options.receive_queue = queue_.get();
        options.inline_bytes = 64;
        ASSERT_EQ(device_->connect(worker_->path(), options, &hello, sizeof hello, &pair_), 0);
        for (int i = 0; i < 16; ++i) ASSERT_EQ(pair_->post_receive({}), 0);
        std::vector<uint8_t> data;
        ASSERT_TRUE(eventually(
            [&] { return pair_->next_event(&data) == fabric::ConnectionEvent::kEstablished; }));
        ASSERT_EQ(data.size(), sizeof welcome_);
        std::memcpy(&welcome_, data.data(), sizeof welcome_);
    }

    void write(const void* bytes, uint32_t length, uint64_t address, uint64_t rkey, int slot) {
        std::memcpy(memory_->data(), bytes, length);
        fabric::SendRequest request;
        request.opcode = slot < 0 ? fabric::Opcode::kWrite : fabric::Opcode::kWriteImm;
        request.immediate = static_cast<uint32_t>(slot);
        request.segment_count = 1;
        request.segments[0] = {memory_->data(), length, memory_.get()};
        request.remote_address = address;
        request.rkey = rkey;
        ASSERT_EQ(pair_->post_send(request), 0);
    }

    void announce(uint32_t index, const wire::Region& region) {
        write(&region, sizeof region, welcome_.regions.address + index * sizeof region,
              welcome_.regions.rkey, -1);
    }

    void send(const wire::RequestHeader& header, uint32_t slot, uint32_t bytes) {
        std::vector<uint8_t> message(sizeof header + bytes);
        std::memcpy(message.data(), &header, sizeof header);
        write(message.data(), static_cast<uint32_t>(message.size()),
              welcome_.slots.address + slot * wire::slot_stride(kPayload) + wire::kHeaderOffset,
              welcome_.slots.rkey, static_cast<int>(slot));
    }

    // The status of the next reply; nothing when the connection ended instead.
    int reply() {
        int status = -1;
        EXPECT_TRUE(eventually([&] {
            fabric::Completion completion;
            if (queue_->poll(&completion, 1) != 1) return false;
            if (completion.status == fabric::Status::kSuccess &&
                completion.opcode == fabric::Opcode::kReceiveWrite) {
                status = static_cast<int>(wire::reply_status(completion.immediate));
                return true;
            }
            return completion.status != fabric::Status::kSuccess;
        }));
        return status;
    }

    void leave() {
        pair_.reset();
        fabric::Completion completion;
        while (queue_->poll(&completion, 1) > 0) continue;
        ASSERT_TRUE(eventually([&] { return worker_->clients.load() == 0; }));
    }

    [[nodiscard]] wire::Region own_region() const {
        const fabric::RemoteKey key = memory_->remote_key();
        return {key.address, key.length, key.rkey};
    }

    std::unique_ptr<fabric::CompletionQueue> queue_;
    std::unique_ptr<fabric::QueuePair> pair_;
    wire::Welcome welcome_;
};

}  // namespace

TEST_F(ForgedRequestTest, AHeaderThatMakesNoSenseIsAnsweredAndDoesNotRun) {
    ASSERT_NO_FATAL_FAILURE(enter());
    announce(1, own_region());
    wire::RequestHeader good;
    good.region = 1;
    good.output_capacity = 64;
    good.output_offset = 4096;
    good.payload_length = 8;
    const std::pair<const char*, std::function<void(wire::RequestHeader&)>> cases[] = {
        {"a longer payload than arrived", [](auto& h) { h.payload_length = 9; }},
        {"a shorter payload than arrived", [](auto& h) { h.payload_length = 7; }},
        {"an enormous payload", [](auto& h) { h.payload_length = ~0u; }},
        {"a region that cannot be", [](auto& h) { h.region = wire::kMaxRegions; }},
        {"the last region of all", [](auto& h) { h.region = 65'535; }},
        {"a region that was never announced", [](auto& h) { h.region = 200; }},
        {"an output behind the region", [](auto& h) { h.output_offset = kBytes + 1; }},
        {"an offset that wraps", [](auto& h) { h.output_offset = ~uint64_t{0} - 8; }},
        {"a capacity beyond the region", [](auto& h) { h.output_capacity = ~0u; }},
    };
    for (const auto& [what, change] : cases) {
        wire::RequestHeader header = good;
        change(header);
        send(header, 2, 8);
        EXPECT_EQ(reply(), static_cast<int>(wire::CallStatus::kBadRequest)) << what;
        ASSERT_EQ(pair_->post_receive({}), 0);
    }
    EXPECT_EQ(worker_->calls.load(), 0u);
    send(good, 2, 8);
    EXPECT_EQ(reply(), static_cast<int>(wire::CallStatus::kOk));
    leave();
}

TEST_F(ForgedRequestTest, WhoBreaksTheProtocolIsDisconnected) {
    const struct {
        const char* what;
        uint32_t slot;
        uint32_t bytes;
    } cases[] = {
        {"a slot that is not there", kSlots, 32},
        {"a slot far away", 1'000'000, 32},
        {"half a header", 0, 16},
        {"nothing", 0, 0},
    };
    for (const auto& [what, slot, bytes] : cases) {
        SCOPED_TRACE(what);
        ASSERT_NO_FATAL_FAILURE(enter());
        const uint8_t zeros[64] = {};
        write(zeros, bytes, welcome_.slots.address, welcome_.slots.rkey, static_cast<int>(slot));
        EXPECT_EQ(reply(), -1) << "the connection ends";
        leave();
    }
    EXPECT_EQ(worker_->calls.load(), 0u);
    connect();
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
}

TEST_F(ForgedRequestTest, ASlotThatIsUsedBeforeItsReplyEndsTheConnection) {
    ASSERT_NO_FATAL_FAILURE(enter());
    announce(1, own_region());
    wire::RequestHeader header;
    header.region = 1;
    header.function = kKeep;
    send(header, 1, 0);
    send(header, 2, 0);
    ASSERT_TRUE(eventually([&] { return worker_->calls.load() == 2; }));
    send(header, 1, 0);
    EXPECT_EQ(reply(), -1);
    EXPECT_EQ(worker_->calls.load(), 2u);
    leave();
}

TEST_F(ForgedRequestTest, AResultForAWrongKeyEndsTheConnectionOfItsClientOnly) {
    ASSERT_NO_FATAL_FAILURE(enter());
    wire::Region wrong = own_region();
    wrong.rkey ^= 0x9000;
    announce(1, wrong);
    wire::RequestHeader header;
    header.region = 1;
    header.output_capacity = 64;
    header.payload_length = 8;
    send(header, 0, 8);
    EXPECT_EQ(reply(), -1);
    leave();
    connect();
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
}

}  // namespace rfaas::invocation
