// Both ends of the invocation protocol: calls, their errors, regions and who may connect.
#include "channel_fixture.h"

namespace rfaas::invocation {

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

TEST_F(ChannelTest, CallsThatAreSentTogetherAreAnsweredAndThoseThatCannotBeSentAreTold) {
    connect();
    ASSERT_EQ(client_->submit(request(kHold, 1)), 0);
    std::vector<CallRequest> requests;
    for (uint32_t slot = 0; slot < kSlots; ++slot) requests.push_back(request(kEcho, slot, 300));
    requests[2].input_region = wire::kMaxRegions;
    client_->submit(requests.data(), kSlots);
    EXPECT_EQ(client_->in_flight(), kSlots - 1) << "slot 1 is taken, and 2 makes no sense";
    worker_->release();
    uint32_t answered = 0;
    uint32_t refused = 0;
    for (uint32_t i = 0; i < kSlots + 1; ++i) {
        const CallOutcome outcome = take();
        const bool bad = outcome.status == number(wire::CallStatus::kBadRequest);
        EXPECT_TRUE(bad || outcome.status == number(wire::CallStatus::kOk));
        (bad ? refused : answered) |= 1u << outcome.slot;
    }
    EXPECT_EQ(refused, 0b110u);
    EXPECT_EQ(answered, ((1u << kSlots) - 1) & ~0b100u);
}

TEST_F(ChannelTest, ACallForAWorkerThatIsNotConnectedWasNotReceived) {
    connect();
    client_->disconnect(0);
    EXPECT_EQ(take().slot, kWorkerDown);
    const CallRequest lost = request(kEcho);
    client_->submit(&lost, 1);
    EXPECT_EQ(take().status, number(wire::CallStatus::kNotReceived));
    EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(ChannelTest, ASlotWhoseCallerStoppedWaitingStaysTakenUntilTheReply) {
    connect();
    CallOutcome outcome;
    Spinner spinner(1'000'000);
    ASSERT_EQ(client_->call(request(kHold), &spinner, &outcome), 0);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kDeadline));
    EXPECT_EQ(client_->submit(request(kEcho)), -EBUSY);
    worker_->release();
    EXPECT_EQ(take().slot, 0u);
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
}

// Its process has other things to do: it may be told to end.
TEST_F(ChannelTest, AWorkerWithoutAClientDoesNotWaitForCalls) {
    struct Silent final : WorkerEvents {
        void connected(const std::string&) override {}
        void disconnected() override {}
        void served(const std::string&) override {}
        void refused(const std::string&, std::string_view) override {}
    } events;
    WorkerChannel channel(&events);
    WorkerOptions options;
    options.provider = "shm";
    options.address = worker_->path() + "-alone";
    options.slots = options.payload_bytes = options.output_bytes = options.function_count = 1;
    std::string reason;
    ASSERT_EQ(channel.open(options, &reason), 0) << reason;
    Call call;
    EXPECT_EQ(channel.next(&call, Spinner::kNoLimit), 0);
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
              "the package has 7 functions, none of index 7");
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

}  // namespace rfaas::invocation
