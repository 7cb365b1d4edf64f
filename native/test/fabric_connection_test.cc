// What fabric.h promises of waiting and of connecting, asked of every provider of this host.
#include "test/fabric_link.h"

namespace rfaas::fabric {

// ── waiting ─────────────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, AnArmedQueueBecomesReadableAtTheNextCompletion) {
    connect();
    server_.post_receives(2);
    for (int round = 0; round < 2; ++round) {
        ASSERT_EQ(server_.queue->arm(), 0);
        server_.poll();
        ASSERT_TRUE(server_.seen.empty());
        EXPECT_FALSE(readable(server_.queue->fd(), 20));
        ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), 0);
        EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
        server_.queue->acknowledge();
        EXPECT_FALSE(readable(server_.queue->fd(), 0));
        EXPECT_EQ(server_.take().status, Status::kSuccess);
    }
}

TEST_P(FabricTest, AQueueStaysArmedWhenWhatCameBeforeIsPolled) {
    connect();
    server_.post_receives(2);
    ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), 0);
    ASSERT_TRUE(eventually([&] {
        client_.poll();
        return !client_.seen.empty();
    })) << "the first has not arrived";
    ASSERT_EQ(server_.queue->arm(), 0);
    EXPECT_EQ(server_.take().status, Status::kSuccess);
    ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), 0);
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
    server_.queue->acknowledge();
    EXPECT_EQ(server_.take().status, Status::kSuccess);
}

// ── connecting ──────────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, WhoUsesTheQueueMeanwhileHearsOfTheConnectionAllTheSame) {
    listen();
    start_connecting();
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_NO_FATAL_FAILURE(await_request(&request));
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
    // As a client does whose calls to other workers go on.
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(client_.queue->arm(), 0);
        ASSERT_EQ(server_.queue->arm(), 0);
        for (int i = 0; i < 10'000; ++i) {
            client_.poll();
            server_.poll();
        }
    }
    EXPECT_EQ(next_event(*client_.pair).type, ConnectionEvent::kEstablished);
    EXPECT_EQ(next_event(*server_.pair).type, ConnectionEvent::kEstablished);
}

TEST_P(FabricTest, PrivateDataArrivesWithItsExactLength) {
    const DeviceInfo& info = client_.device->info();
    listen();
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{info.max_request_private_data}}) {
        std::vector<uint8_t> hello(bytes, 0);  // zeros, which look like padding
        if (bytes > 1) hello[0] = 0xff;
        start_connecting(hello);
        std::unique_ptr<ConnectionRequest> request;
        ASSERT_NO_FATAL_FAILURE(await_request(&request));
        EXPECT_EQ(request->private_data(), hello);
        EXPECT_FALSE(request->peer().empty());
        std::vector<uint8_t> reply(bytes == 1 ? 0 : info.max_reply_private_data, 0);
        ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
        EXPECT_EQ(
            request->accept(server_.pair.get(), reply.data(), info.max_reply_private_data + 1) < 0,
            true);
        ASSERT_EQ(request->accept(server_.pair.get(), reply.data(), reply.size()), 0);
        const Event event = next_event(*client_.pair);
        EXPECT_EQ(event.type, ConnectionEvent::kEstablished);
        EXPECT_EQ(event.data, reply);
        client_.pair.reset();
        server_.pair.reset();
    }
    std::vector<uint8_t> too_long(info.max_request_private_data + 1);
    EXPECT_EQ(client_.device->connect(listener_->address(), client_.options(), too_long.data(),
                                      too_long.size(), &client_.pair),
              -EMSGSIZE);
}

TEST_P(FabricTest, ARejectionCarriesItsReason) {
    listen();
    start_connecting();
    client_.post_receives(1);
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_NO_FATAL_FAILURE(await_request(&request));
    const uint8_t why[] = {1, 2, 0, 0};
    request->reject(why, sizeof why);
    const Event event = next_event(*client_.pair);
    EXPECT_EQ(event.type, ConnectionEvent::kRejected);
    EXPECT_EQ(event.data, std::vector<uint8_t>(why, why + sizeof why));
    EXPECT_EQ(client_.pair->state(), QueuePairState::kError);
    EXPECT_EQ(client_.take().status, Status::kFlushed);
}

TEST_P(FabricTest, ARequestThatIsDroppedIsRejected) {
    listen();
    start_connecting();
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_NO_FATAL_FAILURE(await_request(&request));
    request.reset();
    const Event event = next_event(*client_.pair);
    EXPECT_EQ(event.type, ConnectionEvent::kRejected);
    EXPECT_TRUE(event.data.empty());
}

TEST_P(FabricTest, AReceiveMayBePostedBeforeConnectingIsOver) {
    listen();
    start_connecting();
    client_.post_receives(1);
    EXPECT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), -ENOTCONN);
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_NO_FATAL_FAILURE(await_request(&request));
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
    ASSERT_EQ(next_event(*client_.pair).type, ConnectionEvent::kEstablished);
    ASSERT_EQ(next_event(*server_.pair).type, ConnectionEvent::kEstablished);
    ASSERT_EQ(server_.pair->post_send(server_.request(Opcode::kSend, 0, 0)), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
}

INSTANTIATE_TEST_SUITE_P(Providers, FabricTest, testing::Values("shm", "verbs"),
                         [](const auto& info) { return info.param; });

}  // namespace rfaas::fabric
