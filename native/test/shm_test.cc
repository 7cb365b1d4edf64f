// What only the shm provider can get wrong: fragments, messages inside descriptors, regions that
// are announced late, and wake-ups between sleeping processes. What every provider promises is in
// fabric_test.cc; what strangers may send is in shm_hostile_test.cc.
#include <sys/wait.h>

#include <random>
#include <thread>

#include "fabric/shm/shm_layout.h"
#include "test/fabric_link.h"

namespace rfaas::fabric {

namespace {

class ShmTest : public FabricTest {
  protected:
    // Regions of any size, with every right.
    std::unique_ptr<MemoryRegion> allocate(Side& side, size_t bytes) {
        std::unique_ptr<MemoryRegion> region;
        EXPECT_EQ(side.device->allocate(bytes, kRemoteWrite | kRemoteRead, &region), 0);
        return region;
    }

    SendRequest write_of(const MemoryRegion& from, MemoryRegion& owner, uint32_t bytes,
                         const MemoryRegion& to) {
        SendRequest request;
        request.opcode = Opcode::kWriteImm;
        request.flags = kSignaled;
        request.segment_count = 1;
        request.segments[0] = {from.data(), bytes, &owner};
        request.remote_address = to.remote_key().address;
        request.rkey = to.remote_key().rkey;
        return request;
    }
};

// Waits for the next completion, asleep or spinning.
Completion wait_for_one(CompletionQueue& queue, bool asleep) {
    Completion completion;
    completion.status = Status::kFatal;
    const uint64_t limit = monotonic_ns() + uint64_t{kPatienceMs} * 1'000'000;
    while (monotonic_ns() < limit) {
        int count = queue.poll(&completion, 1);
        if (count != 0) return completion;
        if (!asleep) continue;
        EXPECT_EQ(queue.arm(), 0);
        count = queue.poll(&completion, 1);
        if (count != 0) return completion;
        if (!readable(queue.fd(), kPatienceMs)) break;  // a wake-up was lost
        queue.acknowledge();
    }
    completion.status = Status::kFatal;
    return completion;
}

// One end of a ping-pong in which each side decides anew every time whether it sleeps.
bool bounce(Side& side, RemoteKey to, uint32_t rounds, bool begins, uint32_t seed) {
    std::minstd_rand random(seed);
    SendRequest request = side.request(Opcode::kWriteImm, 0, 8);
    request.flags = kInline;
    request.remote_address = to.address + 64;
    request.rkey = to.rkey;
    for (uint32_t round = 0; round < rounds; ++round) {
        for (const bool sends : {begins, !begins}) {
            if (sends) {
                request.immediate = round;
                request.flags = static_cast<uint8_t>(kInline | (round % 8 == 7 ? kSignaled : 0) |
                                                     (random() % 2 == 0 ? kMore : 0));
                if (side.pair->post_send(request) != 0) return false;
                side.pair->ring();
                continue;
            }
            Completion received;
            do {
                received = wait_for_one(*side.queue, random() % 8 == 0);
                if (received.status != Status::kSuccess) return false;
            } while (received.opcode != Opcode::kReceiveWrite);
            if (received.immediate != round || side.pair->post_receive({}) != 0) return false;
        }
    }
    return true;
}

}  // namespace

TEST_P(ShmTest, AWriteWaitsForTheSmallMessageThatIsStillInItsDescriptor) {
    connect();
    server_.post_receives(2);
    std::memset(client_.region->data(), 1, 8);
    std::memset(client_.region->data() + 4096, 2, 4096);
    ASSERT_EQ(client_.pair->post_send(to_server(client_.request(Opcode::kWriteImm, 0, 8), 100)), 0);
    // Posted later, so its bytes are those that stay.
    ASSERT_EQ(client_.pair->post_send(to_server(client_.request(Opcode::kWrite, 4096, 4096), 0)),
              0);
    EXPECT_EQ(client_.take().opcode, Opcode::kWriteImm);
    EXPECT_EQ(server_.take().immediate, 0u);
    EXPECT_EQ(client_.take().opcode, Opcode::kWrite);
    for (size_t i = 0; i < 4096; ++i) ASSERT_EQ(server_.region->data()[i], 2) << "byte " << i;
}

TEST_P(ShmTest, AReadSeesTheSmallMessagesThatWerePostedBeforeIt) {
    connect();
    for (uint8_t round = 1; round < 100; ++round) {
        server_.post_receives(1);
        std::memset(client_.region->data(), round, 16);
        SendRequest write = to_server(client_.request(Opcode::kWriteImm, 0, 16), 200);
        write.flags = kInline;
        ASSERT_EQ(client_.pair->post_send(write), 0);
        ASSERT_EQ(client_.pair->post_send(to_server(client_.request(Opcode::kRead, 512, 16), 200)),
                  0);
        EXPECT_EQ(client_.take().opcode, Opcode::kRead);
        EXPECT_EQ(client_.region->data()[512], round);
        EXPECT_EQ(server_.take().status, Status::kSuccess);
    }
}

TEST_P(ShmTest, ASmallMessageDoesNotLeakIntoItsNeighbours) {
    connect();
    std::memset(client_.region->data(), 0xff, 4096);
    for (uint32_t length = 1; length <= shm::kInlineBytes + 8; ++length) {
        server_.post_receives(1);
        std::memset(server_.region->data(), 0, 4096);
        SendRequest request = to_server(client_.request(Opcode::kWriteImm, 0, length), 512);
        ASSERT_EQ(client_.pair->post_send(request), 0);
        ASSERT_EQ(server_.take().byte_length, length);
        ASSERT_EQ(client_.take().status, Status::kSuccess);
        ASSERT_EQ(server_.region->data()[511], 0);
        ASSERT_EQ(server_.region->data()[512], 0xff);
        ASSERT_EQ(server_.region->data()[512 + length - 1], 0xff);
        ASSERT_EQ(server_.region->data()[512 + length], 0);
    }
}

TEST_P(ShmTest, SendsLargerThanTheBounceAreaArriveInFragments) {
    connect();
    constexpr uint32_t kBytes = 3 * (1 << 20) + 17;
    static_assert(kBytes > 2 * shm::kBounceBytes);
    const auto from = allocate(client_, kBytes);
    const auto to = allocate(server_, kBytes);
    for (uint32_t i = 0; i < kBytes; ++i) from->data()[i] = static_cast<uint8_t>(i * 13 + i / 999);
    for (int round = 0; round < 3; ++round) {
        std::memset(to->data(), 0, kBytes);
        ReceiveRequest receive;
        receive.segment = {to->data(), kBytes, to.get()};
        ASSERT_EQ(server_.pair->post_receive(receive), 0);
        SendRequest request = write_of(*from, *from, kBytes, *to);
        request.opcode = Opcode::kSendImm;
        request.immediate = 9;
        ASSERT_EQ(client_.pair->post_send(request), 0);
        const Completion received = server_.take();
        EXPECT_EQ(received.status, Status::kSuccess);
        EXPECT_EQ(received.byte_length, kBytes);
        EXPECT_EQ(received.immediate, 9u);
        EXPECT_EQ(client_.take().status, Status::kSuccess);
        EXPECT_EQ(std::memcmp(from->data(), to->data(), kBytes), 0);
        EXPECT_EQ(from->in_flight(), 0u);
    }
}

TEST_P(ShmTest, ASenderWhoFillsTheBounceAreaSleepsUntilThereIsRoom) {
    connect();
    constexpr uint32_t kBytes = 1 << 20;
    const auto from = allocate(client_, kBytes);
    const auto to = allocate(server_, kBytes);
    ReceiveRequest receive;
    receive.segment = {to->data(), kBytes, to.get()};
    ASSERT_EQ(server_.pair->post_receive(receive), 0);
    std::thread server([&] {
        const Completion received = wait_for_one(*server_.queue, true);
        EXPECT_EQ(received.status, Status::kSuccess);
        EXPECT_EQ(received.byte_length, kBytes);
    });
    SendRequest request = write_of(*from, *from, kBytes, *to);
    request.opcode = Opcode::kSend;
    EXPECT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(wait_for_one(*client_.queue, true).status, Status::kSuccess);
    server.join();
}

TEST_P(ShmTest, ACountedRetryFailsWhileItsSenderSleeps) {
    QueuePairOptions options = client_.options();
    options.rnr_retry = 3;
    connect(options, server_.options());
    ASSERT_EQ(client_.pair->post_send(to_server(client_.request(Opcode::kWriteImm, 0, 8), 0)), 0);
    EXPECT_EQ(wait_for_one(*client_.queue, true).status, Status::kRnrRetryExceeded);
}

TEST_P(ShmTest, AReceiveQueueSleepsOnWhileItsSendQueueIsPolled) {
    std::unique_ptr<CompletionQueue> sends;
    ASSERT_EQ(server_.device->create_completion_queue(64, &sends), 0);
    QueuePairOptions options = server_.options();
    options.send_queue = sends.get();
    connect(client_.options(), options);
    client_.post_receives(1);
    server_.post_receives(1);
    ASSERT_EQ(server_.queue->arm(), 0);
    server_.poll();
    // The send queue sleeps, wakes up and is polled; that is not the receive queue's business.
    ASSERT_EQ(sends->arm(), 0);
    SendRequest request = server_.request(Opcode::kSend, 0, 0);
    ASSERT_EQ(server_.pair->post_send(request), 0);
    Completion done;
    EXPECT_EQ(sends->poll(&done, 1), 1);
    ASSERT_EQ(client_.pair->post_send(client_.request(Opcode::kSend, 0, 0)), 0);
    EXPECT_TRUE(readable(server_.queue->fd(), kPatienceMs));
    server_.queue->acknowledge();
    EXPECT_EQ(server_.take().opcode, Opcode::kReceive);
    client_.pair.reset();
    server_.pair.reset();
}

TEST_P(ShmTest, HundredsOfRegionsThatAreMadeAfterConnectingCanBeWritten) {
    connect();
    std::vector<std::unique_ptr<MemoryRegion>> regions;
    // More than the socket holds: the last announcements wait for room.
    for (int i = 0; i < 700; ++i) regions.push_back(allocate(server_, 4096));
    std::memset(client_.region->data(), 0x77, 4096);
    for (const size_t i : {size_t{699}, size_t{0}, size_t{350}}) {
        server_.post_receives(1);
        ASSERT_EQ(
            client_.pair->post_send(write_of(*client_.region, *client_.region, 4096, *regions[i])),
            0);
        EXPECT_EQ(client_.take().status, Status::kSuccess);
        EXPECT_EQ(server_.take().status, Status::kSuccess);
        EXPECT_EQ(regions[i]->data()[4095], 0x77);
    }
}

TEST_P(ShmTest, RegionsThatWaitToBeAnnouncedReachAPeerWhileTheirOwnerSleeps) {
    connect();
    server_.post_receives(1);
    std::vector<std::unique_ptr<MemoryRegion>> regions;
    for (int i = 0; i < 700; ++i) regions.push_back(allocate(server_, 4096));
    std::thread owner(
        [&] { EXPECT_EQ(wait_for_one(*server_.queue, true).opcode, Opcode::kReceiveWrite); });
    ASSERT_EQ(
        client_.pair->post_send(write_of(*client_.region, *client_.region, 4096, *regions.back())),
        0);
    EXPECT_EQ(wait_for_one(*client_.queue, true).status, Status::kSuccess);
    owner.join();
}

TEST_P(ShmTest, TheKeyOfADestroyedRegionIsDeadAtOnce) {
    connect();
    server_.post_receives(2);
    auto region = allocate(server_, 4096);
    const SendRequest request = write_of(*client_.region, *client_.region, 4096, *region);
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(client_.take().status, Status::kSuccess);
    EXPECT_EQ(server_.take().status, Status::kSuccess);
    region.reset();
    // Another region in the old one's place has another key.
    const auto next = allocate(server_, 4096);
    ASSERT_EQ(client_.pair->post_send(request), 0);
    EXPECT_EQ(client_.take().status, Status::kRemoteAccess);
    EXPECT_EQ(next->data()[0], 0);
}

TEST_P(ShmTest, RegionsThatComeAndGoUnreadDoNotPileUp) {
    connect();
    for (int i = 0; i < 20'000; ++i) allocate(server_, 4096);
    const auto last = allocate(server_, 4096);
    server_.post_receives(1);
    ASSERT_EQ(client_.pair->post_send(write_of(*client_.region, *client_.region, 64, *last)), 0);
    EXPECT_EQ(server_.take().byte_length, 64u);
}

TEST_P(ShmTest, RegionsAreZeroedAndItsDeviceRunsOutOfThemWithAnError) {
    std::vector<std::unique_ptr<MemoryRegion>> regions;
    std::unique_ptr<MemoryRegion> region;
    int rc = 0;
    while (rc == 0 && regions.size() <= shm::kMaxRegions) {
        rc = client_.device->allocate(1, 0, &region);
        if (rc == 0) regions.push_back(std::move(region));
    }
    EXPECT_TRUE(rc == -ENOSPC || rc == -EMFILE) << rc;
    regions.clear();
    ASSERT_EQ(client_.device->allocate(1, 0, &region), 0);
    EXPECT_EQ(region->data()[0], 0);
}

TEST_P(ShmTest, ThreadsThatSleepAtRandomLoseNoWakeUp) {
    connect();
    client_.post_receives(1);
    server_.post_receives(1);
    constexpr uint32_t kRounds = 20'000;
    bool served = false;
    std::thread server(
        [&] { served = bounce(server_, client_.region->remote_key(), kRounds, false, 1); });
    EXPECT_TRUE(bounce(client_, server_.region->remote_key(), kRounds, true, 2));
    server.join();
    EXPECT_TRUE(served);
}

TEST_P(ShmTest, ProcessesThatSleepAtRandomLoseNoWakeUp) {
    // In both directions the key travels as private data.
    listen();
    const pid_t peer = start_peer(listener_->address());
    ASSERT_GT(peer, 0);
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_TRUE(eventually([&] { return listener_->next(&request) == 0; }));
    RemoteKey theirs;
    ASSERT_EQ(request->private_data().size(), sizeof theirs);
    std::memcpy(&theirs, request->private_data().data(), sizeof theirs);
    ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
    server_.post_receives(1);
    const RemoteKey ours = server_.region->remote_key();
    ASSERT_EQ(request->accept(server_.pair.get(), &ours, sizeof ours), 0);
    EXPECT_TRUE(bounce(server_, theirs, 50'000, false, 3));
    int status = -1;
    ASSERT_EQ(::waitpid(peer, &status, 0), peer);
    EXPECT_EQ(status, 0);
}

INSTANTIATE_TEST_SUITE_P(Providers, ShmTest, testing::Values("shm"),
                         [](const auto& info) { return info.param; });

namespace {

// The other process of ProcessesThatSleepAtRandomLoseNoWakeUp.
int run_peer(const std::string& provider, const std::string& address) {
    Side side;
    std::string reason;
    if (side.open(provider, kRemoteWrite, &reason) != 0) return 1;
    const RemoteKey ours = side.region->remote_key();
    if (side.device->connect(address, side.options(), &ours, sizeof ours, &side.pair) != 0) {
        return 2;
    }
    if (side.pair->post_receive({}) != 0) return 3;
    const Event event = next_event(*side.pair);
    RemoteKey theirs;
    if (event.type != ConnectionEvent::kEstablished || event.data.size() != sizeof theirs) return 4;
    std::memcpy(&theirs, event.data.data(), sizeof theirs);
    return bounce(side, theirs, 50'000, true, 4) ? 0 : 5;
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
