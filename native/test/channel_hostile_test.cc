// Clients that break the invocation protocol, and requests that are sent again.
#include <optional>

#include "channel_fixture.h"

namespace rfaas::invocation {

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
        hello.session = session_;
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

    void write(const void* bytes, uint32_t length, uint64_t address, uint64_t rkey,
               std::optional<uint32_t> immediate) {
        fabric::SendRequest request;
        request.opcode = immediate ? fabric::Opcode::kWriteImm : fabric::Opcode::kWrite;
        request.flags = fabric::kInline;  // it may wait until we know the worker's memory
        request.immediate = immediate.value_or(0);
        request.segment_count = 1;
        request.segments[0] = {const_cast<void*>(bytes), length, nullptr};
        request.remote_address = address;
        request.rkey = rkey;
        ASSERT_EQ(pair_->post_send(request), 0);
    }

    void announce(uint32_t index, const wire::Region& region) {
        write(&region, sizeof region, welcome_.regions.address + index * sizeof region,
              welcome_.regions.rkey, std::nullopt);
    }

    void send(wire::RequestHeader header, uint32_t slot, uint32_t bytes) {
        if (header.request_id == 0) header.request_id = ++last_id_;
        std::vector<uint8_t> message(sizeof header + bytes);
        std::memcpy(message.data(), &header, sizeof header);
        write(message.data(), static_cast<uint32_t>(message.size()),
              welcome_.slots.address + slot * wire::slot_stride(kPayload) + wire::kHeaderOffset,
              welcome_.slots.rkey, slot);
    }

    void inquire(uint64_t request_id, uint32_t slot) {
        wire::RequestHeader header;
        header.request_id = request_id;
        write(&header, sizeof header,
              welcome_.slots.address + slot * wire::slot_stride(kPayload) + wire::kHeaderOffset,
              welcome_.slots.rkey, slot | wire::kInquiry);
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
    uint64_t session_ = 77;
    uint64_t last_id_ = 0;
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
        write(zeros, bytes, welcome_.slots.address, welcome_.slots.rkey, slot);
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

TEST_F(ForgedRequestTest, ARequestIsTakenOnce) {
    wire::RequestHeader header;
    header.region = 1;
    header.request_id = 5;
    const std::pair<const char*, std::function<void()>> replays[] = {
        {"the same request again", [&] { send(header, 1, 0); }},
        {"one from before it",
         [&] {
             header.request_id = 4;
             send(header, 1, 0);
         }},
        {"an inquiry about one from before it", [&] { inquire(4, 1); }},
        {"an inquiry about a slot that is not there", [&] { inquire(5, kSlots); }},
        {"an inquiry about a call that runs on this connection",
         [&] {
             header.request_id = 6;
             header.function = kKeep;
             send(header, 2, 0);
             inquire(6, 2);
         }},
    };
    for (const auto& [what, replay] : replays) {
        SCOPED_TRACE(what);
        ++session_;
        ASSERT_NO_FATAL_FAILURE(enter());
        announce(1, own_region());
        header.request_id = 5;
        header.function = kEcho;
        send(header, 1, 0);
        EXPECT_EQ(reply(), static_cast<int>(wire::CallStatus::kOk));
        const uint64_t before = worker_->calls.load();
        replay();
        EXPECT_EQ(reply(), -1) << "the connection ends";
        EXPECT_EQ(worker_->calls.load(), before + (header.function == kKeep ? 1 : 0));
        leave();
    }
}

TEST_F(ForgedRequestTest, ARequestThatWasInquiredAboutInVainIsNotTakenAnyMore) {
    ASSERT_NO_FATAL_FAILURE(enter());
    EXPECT_EQ(welcome_.resumed, 0u);
    leave();
    ASSERT_NO_FATAL_FAILURE(enter());
    EXPECT_EQ(welcome_.resumed, 1u);
    announce(1, own_region());
    inquire(5, 1);
    EXPECT_EQ(reply(), static_cast<int>(wire::CallStatus::kNotReceived));
    wire::RequestHeader header;
    header.region = 1;
    header.request_id = 5;
    send(header, 1, 0);
    EXPECT_EQ(reply(), -1) << "the connection ends";
    EXPECT_EQ(worker_->calls.load(), 0u);
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
