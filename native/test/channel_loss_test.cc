// What becomes of calls in flight: workers that end or refuse, connections that break.
#include "channel_fixture.h"

namespace rfaas::invocation {

// ── workers that end ────────────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, EveryCallInFlightEndsWhenItsWorkerHasEnded) {
    connect();
    worker_->hold();
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
        ASSERT_EQ(client_->submit(request(kHold, slot)), 0);
    }
    // The worker goes without a word to its calls: its end of the connection does.
    std::thread worker_ends([&] { worker_.reset(); });
    uint32_t ended = 0;
    bool down = false;
    while (!down || ended != (1u << kSlots) - 1) {
        const CallOutcome outcome = take();
        ASSERT_NE(outcome.status, 99u);
        if (outcome.slot == kWorkerDown) {
            down = true;
            client_->abandon(0, ClientChannel::kAnyStarted);
        } else {
            ended |= 1u << outcome.slot;
            EXPECT_TRUE(outcome.status == number(wire::CallStatus::kWorkerLost) ||
                        outcome.status == number(wire::CallStatus::kLeaseEnded) ||
                        (outcome.slot == 0 && outcome.status == number(wire::CallStatus::kOk)))
                << outcome.status;
        }
    }
    worker_ends.join();
    EXPECT_EQ(client_->in_flight(), 0u);
    EXPECT_EQ(client_->submit(request(kEcho)), -ENOTCONN);
}

TEST_F(ChannelTest, OfTheCallsOfAWorkerThatEndedThoseBehindTheLastThatStartedDidNotRun) {
    connect();
    for (uint32_t slot = 0; slot < 4; ++slot) {
        ASSERT_EQ(client_->submit(request(kHold, slot)), 0);  // requests 1 to 4
    }
    client_->abandon(0, 2);
    EXPECT_EQ(take().slot, kWorkerDown);
    for (uint32_t slot = 0; slot < 4; ++slot) {
        const CallOutcome outcome = take();
        EXPECT_EQ(outcome.slot, slot);
        EXPECT_EQ(outcome.status, number(slot < 2 ? wire::CallStatus::kWorkerLost
                                                  : wire::CallStatus::kNotReceived));
    }
    EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(ChannelTest, AWorkersLastReplyTellsWhichCallsHadStarted) {
    connect();
    ASSERT_EQ(client_->submit(request(kKeep, 0)), 0);
    ASSERT_EQ(client_->submit(request(kHold, 1)), 0);
    ASSERT_EQ(client_->submit(request(kLast, 2)), 0);
    ASSERT_EQ(client_->submit(request(kEcho, 3)), 0);
    worker_->release();
    const auto expect = [&](uint32_t slot, wire::CallStatus status, std::string_view text) {
        const CallOutcome outcome = take();
        EXPECT_EQ(outcome.slot, slot);
        EXPECT_EQ(outcome.status, number(status));
        if (slot < kSlots) {
            EXPECT_EQ(client_->error_text(0, slot, outcome.length), text);
        }
    };
    expect(1, wire::CallStatus::kOk, "");
    expect(0, wire::CallStatus::kWorkerLost, "");
    expect(2, wire::CallStatus::kWorkerLost, "it had to end");
    expect(kWorkerDown, wire::CallStatus::kWorkerLost, "");
    expect(3, wire::CallStatus::kNotReceived, "");
    EXPECT_EQ(worker_->calls.load(), 3u);
}

TEST_F(ChannelTest, AWorkerKeepsForOthersWhichRequestItHasStartedLast) {
    connect();
    EXPECT_EQ(worker_->last_started(), 0u);
    ASSERT_NO_FATAL_FAILURE(start(request(kKeep, 0)));
    ASSERT_NO_FATAL_FAILURE(start(request(kHold, 1)));
    ASSERT_EQ(client_->submit(request(kEcho, 2)), 0);
    EXPECT_EQ(worker_->last_started(), 2u);
    worker_->release();
    EXPECT_EQ(take().slot, 1u);
    EXPECT_EQ(take().slot, 2u);
    EXPECT_EQ(worker_->last_started(), 3u);
    worker_->finish_kept();
    EXPECT_EQ(take().slot, 0u);
    // Another client counts its own requests.
    client_->disconnect(0);
    ClientChannel second(device_.get(), {.workers = 1, .slots = 1});
    ASSERT_EQ(second.open(), 0);
    std::string reason;
    ASSERT_EQ(connect(second, &reason), ConnectProgress::kConnected) << reason;
    EXPECT_EQ(worker_->last_started(), 0u);
}

TEST_F(ChannelTest, AWorkerThatRefusesAnswersNewCallsOnly) {
    connect();
    ASSERT_NO_FATAL_FAILURE(start(request(kKeep, 0)));
    worker_->refuse();
    ASSERT_TRUE(eventually([&] {
        const CallOutcome outcome = call(request(kEcho, 1));
        return outcome.status == number(wire::CallStatus::kLeaseRevoked) &&
               client_->error_text(0, 1, outcome.length) ==
                   "the lease is being revoked; the call did not run";
    }));
    worker_->finish_kept();
    EXPECT_EQ(take().status, number(wire::CallStatus::kOk));
}

// ── connections that break ──────────────────────────────────────────────────────────────────────

TEST_F(ChannelTest, ACutRunsNoCallTwiceAndLosesNone) {
    connect();
    constexpr int kRounds = 300;
    for (int round = 0; round < kRounds; ++round) {
        for (uint32_t slot = 0; slot < kSlots; ++slot) {
            // Inside the descriptor, behind it, and several at once that are taken one by one.
            const uint32_t bytes = round % 2 == 0 ? 16 : 5000;
            std::memset(memory_->data() + slot * kArea, round + static_cast<int>(slot), bytes);
            ASSERT_EQ(client_->submit(request(kEcho, slot, bytes)), 0);
        }
        // At another moment each time: some have not arrived, some have run, some are answered.
        const uint64_t cut = monotonic_ns() + static_cast<uint64_t>(round % 50) * 500;
        while (monotonic_ns() < cut) continue;
        client_->disconnect(0);
        connect();
        uint32_t missing = (1u << kSlots) - 1;
        while (missing != 0) {
            const CallOutcome outcome = take();
            ASSERT_EQ(missing >> outcome.slot & 1, 1u) << "answered twice";
            if (outcome.status == number(wire::CallStatus::kNotReceived)) {
                ASSERT_EQ(client_->submit(request(kEcho, outcome.slot, 16)), 0);
                continue;
            }
            ASSERT_EQ(outcome.status, number(wire::CallStatus::kOk));
            missing &= ~(1u << outcome.slot);
            ASSERT_EQ(memory_->data()[outcome.slot * kArea + kArea / 2 + 15],
                      static_cast<uint8_t>(round + static_cast<int>(outcome.slot)));
        }
        ASSERT_EQ(client_->in_flight(), 0u);
    }
    EXPECT_EQ(worker_->calls.load(), uint64_t{kRounds} * kSlots);
}

TEST_F(ChannelTest, ACallThatRunsThroughACutIsAnsweredAfterIt) {
    connect();
    ASSERT_NO_FATAL_FAILURE(start(request(kKeep, 3)));
    client_->disconnect(0);
    EXPECT_EQ(client_->in_flight(), 1u);
    EXPECT_EQ(client_->submit(request(kEcho)), -ENOTCONN);
    connect();
    EXPECT_EQ(client_->submit(request(kEcho, 3)), -EBUSY) << "it is in doubt still";
    EXPECT_EQ(call(request(kEcho)).status, number(wire::CallStatus::kOk));
    worker_->finish_kept();
    const CallOutcome outcome = take();
    EXPECT_EQ(outcome.slot, 3u);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kOk));
    EXPECT_EQ(worker_->calls.load(), 2u);
}

TEST_F(ChannelTest, AnAnswerThatWasGivenDuringACutWaitsForTheClient) {
    connect();
    ASSERT_NO_FATAL_FAILURE(start(request(kKeep, 4)));
    ASSERT_EQ(client_->submit(request(kFail, 3)), 0);
    ASSERT_TRUE(eventually([&] { return worker_->calls.load() == 2; }));
    client_->disconnect(0);  // unread replies go with the connection
    ASSERT_TRUE(eventually([&] { return worker_->clients.load() == 0; }));
    worker_->finish_kept();
    connect();
    const CallOutcome first = take();
    const CallOutcome second = take();
    EXPECT_EQ(first.slot + second.slot, 7u);
    const CallOutcome& failed = first.slot == 3 ? first : second;
    EXPECT_EQ(failed.status, number(wire::CallStatus::kFunctionError));
    EXPECT_EQ(client_->error_text(0, 3, failed.length), std::string(255, 'x'));
    EXPECT_EQ((first.slot == 3 ? second : first).status, number(wire::CallStatus::kOk));
    EXPECT_EQ(worker_->calls.load(), 2u);
}

TEST_F(ChannelTest, ASpinningCallerLearnsOfACutAndFinishesItsCallAfterIt) {
    connect();
    CallOutcome outcome;
    Spinner brief(1'000'000);
    ASSERT_EQ(client_->call(request(kKeep, 1), &brief, &outcome), 0);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kDeadline));
    client_->disconnect(0);
    Spinner spinner(kPatienceNs);
    EXPECT_EQ(client_->finish(0, 1, &spinner, &outcome), -ECONNRESET);
    connect();
    worker_->finish_kept();
    EXPECT_EQ(client_->finish(0, 1, &spinner, &outcome), 0);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kOk));
}

TEST_F(ChannelTest, AnotherClientWaitsUntilTheCallsOfTheLastOneHaveEnded) {
    connect();
    ASSERT_NO_FATAL_FAILURE(start(request(kKeep, 1)));
    client_->disconnect(0);
    ClientChannel second(device_.get(), {.workers = 1, .slots = 1});
    ASSERT_EQ(second.open(), 0);
    std::string reason;
    ASSERT_TRUE(eventually([&] { return worker_->clients.load() == 0; }));
    EXPECT_EQ(connect(second, &reason), ConnectProgress::kRefused);
    worker_->finish_kept();
    EXPECT_TRUE(
        eventually([&] { return connect(second, &reason) == ConnectProgress::kConnected; }));
    // The worker has forgotten the first one's call: nobody can say any more how it ended.
    second.disconnect(0);
    ASSERT_TRUE(eventually([&] { return worker_->clients.load() == 0; }));
    connect();
    const CallOutcome outcome = take();
    EXPECT_EQ(outcome.slot, 1u);
    EXPECT_EQ(outcome.status, number(wire::CallStatus::kWorkerLost));
}

TEST_F(ChannelTest, AClientIsLetInThoughTheWorkerHasNotLookedAfterTheOneBeforeIt) {
    ClientChannel brief(device_.get(), {.workers = 1, .slots = 1});
    ASSERT_EQ(brief.open(), 0);
    std::string reason;
    worker_->linger(true);
    ASSERT_EQ(connect(brief, &reason), ConnectProgress::kConnected) << reason;
    brief.disconnect(0);
    ASSERT_EQ(client_->connect(0, worker_->path(), ticket_), 0);
    worker_->linger(false);
    EXPECT_EQ(finish_connecting(*client_, &reason), ConnectProgress::kConnected) << reason;
}

}  // namespace rfaas::invocation
