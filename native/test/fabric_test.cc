// What fabric.h promises of messages and their ends, asked of every provider of this host.
// RFAAS_REQUIRE=verbs turns a provider that is missing into a failure.
#include <signal.h>
#include <sys/wait.h>

#include "test/fabric_link.h"

namespace rfaas::fabric {

namespace {

void fill(const Side& side, size_t offset, size_t length, uint8_t seed) {
    for (size_t i = 0; i < length; ++i) {
        side.region->data()[offset + i] = static_cast<uint8_t>(seed + i * 7);
    }
}

bool holds(const Side& side, size_t offset, size_t length, uint8_t seed) {
    for (size_t i = 0; i < length; ++i) {
        if (side.region->data()[offset + i] != static_cast<uint8_t>(seed + i * 7)) return false;
    }
    return true;
}

}  // namespace

// ── messages ────────────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, WriteWithImmediateDeliversBytesImmediateAndLength) {
    connect();
    server_.post_receives(8);
    for (const uint32_t length : {1u, 8u, 64u, 4096u, 70'001u}) {
        for (const uint32_t immediate : {0u, 7u, 0x80000001u}) {
            fill(client_, 0, length, static_cast<uint8_t>(length + immediate));
            SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, length), 100);
            request.id = length;
            request.immediate = immediate;
            ASSERT_EQ(client_.pair->post_send(request), 0);
            const Completion received = server_.take();
            EXPECT_EQ(received.status, Status::kSuccess);
            EXPECT_EQ(received.opcode, Opcode::kReceiveWrite);
            EXPECT_TRUE(received.has_immediate);
            EXPECT_EQ(received.immediate, immediate);
            EXPECT_EQ(received.byte_length, length);
            EXPECT_EQ(received.queue_pair, server_.pair->number());
            EXPECT_TRUE(holds(server_, 100, length, static_cast<uint8_t>(length + immediate)));
            const Completion sent = client_.take();
            EXPECT_EQ(sent.status, Status::kSuccess);
            EXPECT_EQ(sent.opcode, Opcode::kWriteImm);
            EXPECT_EQ(sent.id, length);
            server_.post_receives(1);
        }
    }
}

TEST_P(FabricTest, MessagesOfNoBytesArrive) {
    connect();
    server_.post_receives(3);
    SendRequest write = to_server(client_.request(Opcode::kWriteImm, 0, 0), 0);
    write.immediate = 5;
    ASSERT_EQ(client_.pair->post_send(write), 0);
    ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), 0);
    SendRequest send = client_.request(Opcode::kSendImm, 0, 0);
    send.immediate = ~0u;
    ASSERT_EQ(client_.pair->post_send(send), 0);

    Completion received = server_.take();
    EXPECT_EQ(received.opcode, Opcode::kReceiveWrite);
    EXPECT_EQ(received.immediate, 5u);
    EXPECT_EQ(received.byte_length, 0u);
    received = server_.take();
    EXPECT_EQ(received.opcode, Opcode::kReceive);
    EXPECT_FALSE(received.has_immediate);
    received = server_.take();
    EXPECT_EQ(received.opcode, Opcode::kReceive);
    EXPECT_EQ(received.immediate, ~0u);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(client_.take().status, Status::kSuccess);
}

TEST_P(FabricTest, SendGathersTwoSegmentsIntoAReceive) {
    connect();
    ReceiveRequest receive;
    receive.id = 77;
    receive.segment = server_.segment(4096, 3000);
    ASSERT_EQ(server_.pair->post_receive(receive), 0);
    EXPECT_EQ(server_.region->in_flight(), 1u);

    fill(client_, 0, 1000, 3);
    fill(client_, 5000, 500, static_cast<uint8_t>(3 + 1000 * 7));
    SendRequest request = client_.request(Opcode::kSend, 0, 1000);
    request.segment_count = 2;
    request.segments[1] = client_.segment(5000, 500);
    ASSERT_EQ(client_.pair->post_send(request), 0);
    const Completion received = server_.take();
    EXPECT_EQ(received.status, Status::kSuccess);
    EXPECT_EQ(received.id, 77u);
    EXPECT_EQ(received.byte_length, 1500u);
    EXPECT_TRUE(holds(server_, 4096, 1500, 3));
    EXPECT_EQ(server_.region->in_flight(), 0u);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(client_.region->in_flight(), 0u);
}

TEST_P(FabricTest, ReadScattersIntoTwoSegments) {
    connect();
    fill(server_, 300, 6000, 9);
    SendRequest request = to_server(client_.request(Opcode::kRead, 0, 2000), 300);
    request.segment_count = 2;
    request.segments[1] = client_.segment(9000, 4000);
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_TRUE(holds(client_, 0, 2000, 9));
    EXPECT_TRUE(holds(client_, 9000, 4000, static_cast<uint8_t>(9 + 2000 * 7)));
}

TEST_P(FabricTest, AtomicsReturnTheOldValue) {
    if (!client_.device->info().atomics) GTEST_SKIP() << "the device has no atomics";
    connect();
    auto* word = reinterpret_cast<uint64_t*>(server_.region->data() + 64);
    auto* old = reinterpret_cast<uint64_t*>(client_.region->data());
    *word = 40;
    SendRequest add = to_server(client_.request(Opcode::kFetchAdd, 0, 8), 64);
    add.compare_add = 2;
    ASSERT_EQ(client_.pair->post_send(add), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(*old, 40u);
    EXPECT_EQ(*word, 42u);

    SendRequest swap = to_server(client_.request(Opcode::kCompareSwap, 0, 8), 64);
    swap.compare_add = 41;
    swap.swap = 1;
    ASSERT_EQ(client_.pair->post_send(swap), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(*old, 42u);
    EXPECT_EQ(*word, 42u) << "it did not hold the expected value";
    swap.compare_add = 42;
    ASSERT_EQ(client_.pair->post_send(swap), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(*word, 1u);
}

TEST_P(FabricTest, InlineBytesAreCopiedBeforeThePostReturns) {
    connect();
    server_.post_receives(1);
    const uint32_t length = client_.options().inline_bytes;
    ASSERT_GE(client_.pair->inline_bytes(), length);
    std::vector<uint8_t> mine(length, 0x5a);
    SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 0), 0);
    request.flags |= kInline;
    request.segment_count = 1;
    request.segments[0] = {mine.data(), length, nullptr};
    ASSERT_EQ(client_.pair->post_send(request), 0);
    std::fill(mine.begin(), mine.end(), 0);
    EXPECT_EQ(server_.take().byte_length, length);
    EXPECT_EQ(std::vector<uint8_t>(server_.region->data(), server_.region->data() + length),
              std::vector<uint8_t>(length, 0x5a));
    EXPECT_EQ(client_.take().status, Status::kSuccess);

    request.segments[0] = client_.segment(0, client_.pair->inline_bytes() + 1);
    EXPECT_EQ(client_.pair->post_send(request), -EMSGSIZE);
}

TEST_P(FabricTest, SeventyThousandMessagesThereAndBackArriveInOrder) {
    connect();
    client_.post_receives(Side::kDepth);
    server_.post_receives(Side::kDepth);
    for (uint32_t i = 0; i < 70'000; ++i) {
        for (auto [from, to] : {std::pair{&client_, &server_}, std::pair{&server_, &client_}}) {
            SendRequest request = from->request(Opcode::kWriteImm, 0, 8);
            std::memcpy(from->region->data(), &i, sizeof i);
            request.flags = i % 4 == 3 ? kSignaled : 0;
            request.immediate = i;
            request.remote_address = to->region->remote_key().address + 64;
            request.rkey = to->region->remote_key().rkey;
            ASSERT_EQ(from->pair->post_send(request), 0) << "message " << i;
            Completion received = to->take();
            while (received.opcode == Opcode::kWriteImm) received = to->take();
            ASSERT_EQ(received.status, Status::kSuccess) << "message " << i;
            ASSERT_EQ(received.immediate, i);
            uint32_t arrived = 0;
            std::memcpy(&arrived, to->region->data() + 64, sizeof arrived);
            ASSERT_EQ(arrived, i);
            ASSERT_EQ(to->pair->post_receive({}), 0);
        }
    }
}

TEST_P(FabricTest, ManyMegabytesArriveUnharmed) {
    std::unique_ptr<MemoryRegion> from;
    std::unique_ptr<MemoryRegion> to;
    const auto bytes = static_cast<uint32_t>(
        std::min<uint64_t>(client_.device->info().max_message_bytes, 8u << 20));
    ASSERT_EQ(client_.device->allocate(bytes, 0, &from), 0);
    ASSERT_EQ(server_.device->allocate(bytes, kRemoteWrite, &to), 0);
    connect();
    server_.post_receives(1);
    for (uint32_t i = 0; i < bytes; ++i) from->data()[i] = static_cast<uint8_t>(i * 31 + (i >> 12));
    SendRequest request = client_.request(Opcode::kWriteImm, 0, 0);
    request.segment_count = 1;
    request.segments[0] = {from->data(), bytes, from.get()};
    request.remote_address = to->remote_key().address;
    request.rkey = to->remote_key().rkey;
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(server_.take().byte_length, bytes);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(std::memcmp(from->data(), to->data(), bytes), 0);
}

// ── back-pressure ───────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, ASenderWaitsForAReceiveThatComesLate) {
    connect();
    for (uint32_t i = 0; i < 3; ++i) {
        SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 8), 0);
        request.immediate = i;
        ASSERT_EQ(client_.pair->post_send(request), 0);
    }
    EXPECT_FALSE(eventually(
        [&] {
            client_.poll();
            server_.poll();
            return !client_.seen.empty() || !server_.seen.empty();
        },
        100));
    server_.post_receives(3);
    for (uint32_t i = 0; i < 3; ++i) {
        const Completion received = server_.take();
        EXPECT_EQ(received.status, Status::kSuccess);
        EXPECT_EQ(received.immediate, i);
        EXPECT_EQ(client_.take().status, Status::kSuccess);
    }
}

TEST_P(FabricTest, RetriesForAReceiveRunOutWhenTheyAreCounted) {
    QueuePairOptions options = client_.options();
    options.rnr_retry = 2;
    connect(options, server_.options());
    SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 8), 0);
    for (request.id = 1; request.id <= 3; ++request.id) {
        request.flags = request.id == 3 ? 0 : kSignaled;
        ASSERT_EQ(client_.pair->post_send(request), 0);
    }
    const Completion first = client_.take();
    EXPECT_EQ(first.id, 1u);
    EXPECT_EQ(first.status, Status::kRnrRetryExceeded);
    for (const uint64_t id : {2u, 3u}) {
        const Completion flushed = client_.take();
        EXPECT_EQ(flushed.id, id) << "unsignalled requests complete too when they fail";
        EXPECT_EQ(flushed.status, Status::kFlushed);
    }
    EXPECT_EQ(client_.pair->post_send(request), -ENOTCONN);
    EXPECT_EQ(client_.pair->state(), QueuePairState::kError);
    EXPECT_EQ(client_.region->in_flight(), 0u);
}

TEST_P(FabricTest, AFullSendQueueRefusesAndRecovers) {
    connect();
    SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 8), 0);
    for (uint32_t i = 0; i < Side::kDepth; ++i) {
        request.id = i;
        request.flags = i + 1 == Side::kDepth ? kSignaled : 0;
        ASSERT_EQ(client_.pair->post_send(request), 0);
    }
    EXPECT_EQ(client_.pair->post_send(request), -EAGAIN);
    EXPECT_EQ(client_.region->in_flight(), Side::kDepth);
    server_.post_receives(Side::kDepth);
    const Completion done = client_.take();
    EXPECT_EQ(done.id, Side::kDepth - 1) << "only the signalled one completes";
    EXPECT_EQ(done.status, Status::kSuccess);
    EXPECT_EQ(client_.region->in_flight(), 0u);
    for (uint32_t i = 0; i < Side::kDepth; ++i) {
        EXPECT_EQ(server_.take().status, Status::kSuccess);
        ASSERT_EQ(client_.pair->post_send(request), 0) << "there is room for all of them again";
    }
}

TEST_P(FabricTest, QueuesHaveTheDepthThatWasAskedFor) {
    connect();
    server_.post_receives(Side::kDepth);
    EXPECT_EQ(server_.pair->post_receive({}), -EAGAIN);

    // The completion queue of 4 * kDepth has room for this pair and one more.
    std::unique_ptr<QueuePair> pairs[2];
    const auto connect_to = [&](int i) {
        return client_.device->connect(listener_->address(), client_.options(), nullptr, 0,
                                       &pairs[i]);
    };
    EXPECT_EQ(connect_to(0), 0);
    EXPECT_EQ(connect_to(1), -ENOSPC);
    pairs[0].reset();
    EXPECT_EQ(connect_to(1), 0);
}

// ── errors ──────────────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, AnAccessThatIsNotAllowedEndsTheConnectionOnBothSides) {
    std::unique_ptr<MemoryRegion> read_only;
    ASSERT_EQ(server_.device->allocate(4096, kRemoteRead, &read_only), 0);
    const RemoteKey key = server_.region->remote_key();
    const RemoteKey guarded = read_only->remote_key();
    const struct {
        const char* what;
        uint64_t address, rkey;
    } cases[] = {
        {"a wrong key", key.address, key.rkey ^ 0x5500},
        {"a wrong upper half of the key", key.address, key.rkey ^ (uint64_t{1} << 40)},
        {"the last byte is outside", key.address + key.length - 7, key.rkey},
        {"before the begin", key.address - 8, key.rkey},
        {"far away", key.address + (uint64_t{1} << 40), key.rkey},
        {"the key of another region", key.address, guarded.rkey},
        {"a region that is for reading", guarded.address, guarded.rkey},
    };
    for (const auto& [what, address, rkey] : cases) {
        SCOPED_TRACE(what);
        connect();
        server_.post_receives(2);
        SendRequest request = client_.request(Opcode::kWriteImm, 0, 8);
        request.id = 1;
        request.remote_address = address;
        request.rkey = rkey;
        ASSERT_EQ(client_.pair->post_send(request), 0);
        const Completion failed = client_.take();
        EXPECT_EQ(failed.id, 1u);
        EXPECT_EQ(failed.status, Status::kRemoteAccess);
        EXPECT_EQ(client_.pair->post_send(request), -ENOTCONN);
        EXPECT_EQ(client_.pair->post_receive({}), -ENOTCONN);
        EXPECT_EQ(next_event(*client_.pair).type, ConnectionEvent::kDisconnected);
        EXPECT_EQ(next_event(*server_.pair).type, ConnectionEvent::kDisconnected);
        for (int i = 0; i < 2; ++i) EXPECT_NE(server_.take().status, Status::kSuccess);
        EXPECT_EQ(server_.pair->post_send(server_.request(Opcode::kSend, 0, 0)), -ENOTCONN);
        client_.pair.reset();
        server_.pair.reset();
    }
}

TEST_P(FabricTest, WhatHasArrivedIsDeliveredBeforeAFailedSendEndsTheConnection) {
    connect();
    client_.post_receives(2);
    server_.post_receives(1);
    server_.other = nullptr;  // the client does not look meanwhile
    SendRequest last = server_.request(Opcode::kWriteImm, 0, 0);
    last.immediate = 7;
    ASSERT_EQ(server_.pair->post_send(last), 0);
    ASSERT_EQ(server_.take().status, Status::kSuccess);
    SendRequest late = to_server(client_.request(Opcode::kWriteImm, 0, 8), 0);
    late.rkey ^= 0x5500;  // the server is about to end, and its memory is gone already
    ASSERT_EQ(client_.pair->post_send(late), 0);
    const Completion received = client_.take();
    EXPECT_EQ(received.status, Status::kSuccess);
    EXPECT_EQ(received.opcode, Opcode::kReceiveWrite);
    EXPECT_EQ(received.immediate, 7u);
    EXPECT_EQ(client_.take().status, Status::kRemoteAccess);
    EXPECT_EQ(client_.take().status, Status::kFlushed);
}

TEST_P(FabricTest, ASegmentOutsideItsRegionIsALocalError) {
    for (const uint8_t flags : {kSignaled, static_cast<SendFlags>(kSignaled | kInline)}) {
        connect();
        server_.post_receives(1);
        SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, 16), 0);
        request.flags = flags;
        request.segments[0].address = client_.region->data() + Side::kBytes - 8;
        ASSERT_EQ(client_.pair->post_send(request), 0);
        EXPECT_EQ(client_.take().status, Status::kLocalProtection);
        EXPECT_EQ(client_.pair->state(), QueuePairState::kError);
        client_.pair.reset();
        server_.pair.reset();
    }
}

TEST_P(FabricTest, ASendThatDoesNotFitItsReceiveFailsOnBothSides) {
    connect();
    ReceiveRequest receive;
    receive.segment = server_.segment(0, 100);
    ASSERT_EQ(server_.pair->post_receive(receive), 0);
    ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 101)), 0);
    EXPECT_EQ(server_.take().status, Status::kLocalLength);
    EXPECT_EQ(client_.take().status, Status::kRemoteInvalid);
    EXPECT_EQ(server_.region->data()[100], 0) << "nothing is written behind the receive";
}

TEST_P(FabricTest, AMisalignedAtomicIsRefusedHereOrByThePeer) {
    if (!client_.device->info().atomics) GTEST_SKIP() << "the device has no atomics";
    connect();
    const SendRequest add = to_server(client_.request(Opcode::kFetchAdd, 0, 8), 4);
    const int rc = client_.pair->post_send(add);
    if (rc == 0) {
        EXPECT_EQ(client_.take().status, Status::kRemoteInvalid);
    } else {
        EXPECT_EQ(rc, -EINVAL);
    }
}

TEST_P(FabricTest, RequestsThatMakeNoSenseAreNotPosted) {
    connect();
    SendRequest request = client_.request(Opcode::kSend, 0, 0);
    request.segment_count = 3;
    EXPECT_EQ(client_.pair->post_send(request), -EINVAL);
    ReceiveRequest receive;
    receive.segment = client_.segment(Side::kBytes - 1, 2);
    EXPECT_EQ(client_.pair->post_receive(receive), -EINVAL);
    receive.segment = {client_.region->data(), 8, nullptr};
    EXPECT_EQ(client_.pair->post_receive(receive), -EINVAL);
    EXPECT_EQ(client_.region->in_flight(), 0u);
}

// ── ends ────────────────────────────────────────────────────────────────────────────────────────

TEST_P(FabricTest, APeerThatDisconnectsFlushesWhatIsPosted) {
    connect();
    server_.post_receives(3);
    ASSERT_EQ(server_.queue->arm(), 0);
    server_.poll();
    client_.pair->disconnect();
    client_.pair->disconnect();
    EXPECT_EQ(client_.pair->state(), QueuePairState::kClosed);
    EXPECT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), -ENOTCONN);
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs)) << "the completion queue tells, too";
    server_.queue->acknowledge();
    EXPECT_EQ(next_event(*server_.pair).type, ConnectionEvent::kDisconnected);
    for (uint64_t i = 0; i < 3; ++i) {
        const Completion flushed = server_.take();
        EXPECT_EQ(flushed.id, 1000 + i);
        EXPECT_EQ(flushed.status, Status::kFlushed);
    }
    std::vector<uint8_t> none;
    EXPECT_EQ(server_.pair->next_event(&none), ConnectionEvent::kNone) << "told once";
}

TEST_P(FabricTest, APeerThatOnlyPollsNoticesTheEndThroughItsReceives) {
    connect();
    server_.post_receives(1);
    client_.pair.reset();
    EXPECT_EQ(server_.take().status, Status::kFlushed);
    EXPECT_EQ(next_event(*server_.pair).type, ConnectionEvent::kDisconnected);
}

TEST_P(FabricTest, AKilledPeerIsNoticedWithWorkInFlight) {
    listen();
    const pid_t peer = start_peer(listener_->address());
    ASSERT_GT(peer, 0);
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_TRUE(eventually([&] { return listener_->next(&request) == 0; }));
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    server_.post_receives(1);
    ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
    ASSERT_EQ(next_event(*server_.pair).type, ConnectionEvent::kEstablished);
    // It has no receive posted: these are on their way for ever.
    for (uint64_t id = 1; id <= 3; ++id) {
        SendRequest send = server_.request(Opcode::kSend, 0, 8);
        send.id = id;
        ASSERT_EQ(server_.pair->post_send(send), 0);
    }
    ASSERT_EQ(server_.queue->arm(), 0);
    server_.poll();
    ASSERT_EQ(::kill(peer, SIGKILL), 0);
    ASSERT_EQ(::waitpid(peer, nullptr, 0), peer);
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
    server_.queue->acknowledge();
    EXPECT_EQ(next_event(*server_.pair).type, ConnectionEvent::kDisconnected);
    std::vector<uint64_t> sends;
    for (int i = 0; i < 4; ++i) {
        const Completion flushed = server_.take();
        EXPECT_NE(flushed.status, Status::kSuccess);
        if (flushed.opcode == Opcode::kSend) sends.push_back(flushed.id);
    }
    EXPECT_EQ(sends, (std::vector<uint64_t>{1, 2, 3}));
    EXPECT_EQ(server_.region->in_flight(), 0u);
}

TEST_P(FabricTest, ADestroyedQueuePairLetsGoOfItsMemory) {
    connect();
    ReceiveRequest receive;
    receive.segment = server_.segment(0, 64);
    ASSERT_EQ(server_.pair->post_receive(receive), 0);
    ASSERT_EQ(client_.pair->post_send(to_server(client_.request(Opcode::kRead, 0, 4096), 0)), 0);
    client_.pair.reset();
    server_.pair.reset();
    EXPECT_EQ(client_.region->in_flight(), 0u);
    EXPECT_EQ(server_.region->in_flight(), 0u);
    // What is left in the queues is nobody's: the next pair hears of its own requests only.
    client_.poll();
    server_.poll();
    client_.seen.clear();
    server_.seen.clear();
    connect();
    server_.post_receives(1);
    SendRequest request = client_.request(Opcode::kSend, 0, 0);
    request.id = 4711;
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(client_.take().id, 4711u);
    EXPECT_EQ(server_.take().id, 1000u);
}

TEST_P(FabricTest, QueuePairsCanGoInEveryState) {
    listen();
    std::unique_ptr<ConnectionRequest> request;
    start_connecting();
    client_.post_receives(2);
    client_.pair.reset();  // connecting

    listen();  // its request may be waiting at the old listener
    start_connecting();
    await_request(&request);
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    server_.post_receives(2);
    server_.pair.reset();  // prepared
    request.reset();
    EXPECT_EQ(next_event(*client_.pair).type, ConnectionEvent::kRejected);
    client_.pair.reset();  // rejected

    start_connecting();
    await_request(&request);
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
    server_.pair.reset();  // accepted, before the client has heard of it
    request.reset();
    EXPECT_TRUE(eventually([&] {
        std::vector<uint8_t> none;
        (void)client_.pair->next_event(&none);
        return client_.pair->state() == QueuePairState::kError;
    }));
    client_.pair.reset();

    connect();
    client_.pair->disconnect();
    client_.pair.reset();  // closed
}

INSTANTIATE_TEST_SUITE_P(Providers, FabricTest, testing::Values("shm", "verbs"),
                         [](const auto& info) { return info.param; });

namespace {

// The other process of AKilledPeerIsNoticedWithWorkInFlight: connects, posts nothing, and stays.
int run_peer(const std::string& provider, const std::string& address) {
    Side side;
    std::string reason;
    if (side.open(provider, 0, &reason) != 0) return 1;
    if (side.device->connect(address, side.options(), nullptr, 0, &side.pair) != 0) return 2;
    if (next_event(*side.pair).type != ConnectionEvent::kEstablished) return 3;
    for (;;) ::pause();
}

}  // namespace

}  // namespace rfaas::fabric

int main(int argc, char** argv) {
    if (argc == 4 && std::string(argv[1]) == "--peer") {
        return rfaas::fabric::run_peer(argv[2], argv[3]);
    }
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
