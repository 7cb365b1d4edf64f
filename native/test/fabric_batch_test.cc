// What fabric.h promises of posting several at a time, asked of every provider of this host.
#include "test/fabric_link.h"

namespace rfaas::fabric {

TEST_P(FabricTest, ReceivesThatArePostedTogetherAreTakenOneByOne) {
    connect();
    ReceiveRequest receive;
    receive.id = 7;
    receive.segment = server_.segment(0, 64);
    EXPECT_EQ(server_.pair->post_receives(receive, Side::kDepth + 1), -EAGAIN);
    EXPECT_EQ(server_.region->in_flight(), 0u) << "none of them was posted";
    ASSERT_EQ(server_.pair->post_receives(receive, Side::kDepth), 0);
    EXPECT_EQ(server_.region->in_flight(), Side::kDepth);
    for (uint32_t i = 0; i < Side::kDepth; ++i) {
        client_.region->data()[0] = static_cast<uint8_t>(i);
        ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 1)), 0);
        EXPECT_EQ(server_.take().id, 7u);
        EXPECT_EQ(server_.region->data()[0], i);
        EXPECT_EQ(client_.take().status, Status::kSuccess);
    }
    EXPECT_EQ(server_.region->in_flight(), 0u);
    EXPECT_EQ(server_.pair->post_receives(receive, Side::kDepth), 0);
}

// Inline bytes are the sender's again at once, those of a region when the send has completed.
TEST_P(FabricTest, SendsOfWhichMoreFollowArriveInOrderWithTheBytesThatTheyHad) {
    connect();
    server_.post_receives(Side::kDepth);
    client_.region->data()[100] = 100;
    uint8_t bytes[8] = {};
    for (uint32_t i = 0; i < Side::kDepth - 1; ++i) {
        SendRequest request = to_server(client_.request(Opcode::kWriteImm, 100, 1), i * 16);
        request.immediate = i;
        request.flags |= kMore;
        if (i % 3 != 0) {
            bytes[0] = static_cast<uint8_t>(i);
            bytes[1] = static_cast<uint8_t>(2 * i);
            request.segment_count = 2;
            request.segments[0] = {bytes, 1, nullptr};
            request.segments[1] = {bytes + 1, 1, nullptr};
            request.flags |= kInline;
        }
        ASSERT_EQ(client_.pair->post_send(request), 0);
    }
    // Nothing follows this one: it takes the others along.
    SendRequest last = to_server(client_.request(Opcode::kWriteImm, 100, 1), 1000);
    last.immediate = Side::kDepth - 1;
    ASSERT_EQ(client_.pair->post_send(last), 0);
    for (uint32_t i = 0; i < Side::kDepth; ++i) {
        const Completion completion = server_.take();
        ASSERT_EQ(completion.status, Status::kSuccess);
        EXPECT_EQ(completion.immediate, i);
        if (i == Side::kDepth - 1) break;
        const uint8_t* landed = server_.region->data() + i * 16;
        EXPECT_EQ(landed[0], i % 3 == 0 ? 100 : i);
        EXPECT_EQ(landed[1], i % 3 == 0 ? 0 : 2 * i);
    }
    for (uint32_t i = 0; i < Side::kDepth; ++i) EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(client_.region->in_flight(), 0u);
}

TEST_P(FabricTest, APeerThatSleepsHearsOfSeveralSendsAtTheLatestByTheRing) {
    connect();
    server_.post_receives(3);
    ASSERT_EQ(server_.queue->arm(), 0);
    server_.poll();
    for (int i = 0; i < 3; ++i) {
        SendRequest request = client_.request(Opcode::kSend, 0, 0);
        request.flags |= kMore;
        ASSERT_EQ(client_.pair->post_send(request), 0);
    }
    client_.pair->ring();
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
    server_.queue->acknowledge();
    for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(server_.take().id, 1000 + i);
}

TEST_P(FabricTest, AQuietSendWakesAPeerThatHasGoneToSleep) {
    connect();
    server_.post_receives(1);
    ASSERT_EQ(server_.queue->arm(), 0);
    server_.poll();
    SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 0), 0);
    request.flags |= kQuiet;
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
    server_.queue->acknowledge();
    EXPECT_EQ(server_.take().id, 1000u);
    client_.pair->ring();
}

INSTANTIATE_TEST_SUITE_P(Providers, FabricTest, testing::Values("shm", "verbs"),
                         [](const auto& info) { return info.param; });

}  // namespace rfaas::fabric
