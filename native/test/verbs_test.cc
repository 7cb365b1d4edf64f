// What only the verbs provider does: addresses, librdmacm's refusals, and strangers on the wire.
#include <rdma/rdma_cma.h>

#include <algorithm>
#include <cctype>

#include "test/fabric_link.h"

namespace rfaas::fabric {

namespace {

class VerbsTest : public testing::Test {
  protected:
    void SetUp() override {
        std::string reason;
        const int rc = side_.open("verbs", kRemoteWrite, &reason);
        const char* required = std::getenv("RFAAS_REQUIRE");
        if (rc != 0 && required != nullptr && std::string(required) == "verbs") {
            FAIL() << "verbs is required: " << reason;
        }
        if (rc != 0) GTEST_SKIP() << "verbs: " << reason;
    }

    Event connect_to(const std::string& address) {
        EXPECT_EQ(side_.device->connect(address, side_.options(), nullptr, 0, &side_.pair), 0);
        return next_event(*side_.pair);
    }

    // Host of a listener on a wildcard: an address of this machine that reaches the device.
    std::string own_host(const char* wildcard) {
        std::unique_ptr<Listener> listener;
        if (side_.device->listen(wildcard, 1, &listener) != 0) return {};
        const std::string& address = listener->address();
        return address.substr(0, address.rfind(':'));
    }

    Side side_;
};

}  // namespace

TEST_F(VerbsTest, TheDeviceSaysWhatItCanDo) {
    const DeviceInfo& info = side_.device->info();
    EXPECT_EQ(info.provider, "verbs");
    EXPECT_FALSE(info.name.empty());
    EXPECT_GE(info.max_send_depth, 64u);
    EXPECT_GE(info.max_completion_depth, 128u);
    EXPECT_GE(info.max_message_bytes, uint64_t{1} << 20);
    EXPECT_EQ(info.max_request_private_data, 55u);
    EXPECT_EQ(info.max_reply_private_data, 147u);
    const auto all = providers();
    const auto verbs = std::find_if(all.begin(), all.end(),
                                    [](const auto& status) { return status.name == "verbs"; });
    ASSERT_NE(verbs, all.end());
    EXPECT_TRUE(verbs->available);
    EXPECT_TRUE(verbs->reason.empty()) << verbs->reason;
}

TEST_F(VerbsTest, ADeviceThatDoesNotExistIsNamedWithThoseThatDo) {
    std::unique_ptr<Device> device;
    std::string reason;
    EXPECT_EQ(open_device("verbs", "nope0", &device, &reason), -ENODEV);
    EXPECT_NE(reason.find("nope0"), std::string::npos) << reason;
    EXPECT_NE(reason.find(side_.device->info().name), std::string::npos) << reason;
}

TEST_F(VerbsTest, AllTheInlineBytesThatTheDeviceClaimsAreGranted) {
    std::unique_ptr<Listener> listener;
    ASSERT_EQ(side_.device->listen("0.0.0.0:0", 1, &listener), 0);
    QueuePairOptions options = side_.options();
    options.inline_bytes = side_.device->info().max_inline_bytes;
    std::unique_ptr<QueuePair> pair;
    ASSERT_EQ(side_.device->connect(listener->address(), options, nullptr, 0, &pair), 0);
    EXPECT_GE(pair->inline_bytes(), options.inline_bytes);
    pair.reset();
    options.inline_bytes = 1 << 20;  // no device has that: less is granted, not nothing
    ASSERT_EQ(side_.device->connect(listener->address(), options, nullptr, 0, &pair), 0);
    EXPECT_LT(pair->inline_bytes(), options.inline_bytes);
    EXPECT_GE(pair->inline_bytes(), side_.device->info().max_inline_bytes / 2);
}

TEST_F(VerbsTest, AListenerOnAWildcardNamesAnAddressThatPeersCanUse) {
    for (const char* wildcard : {"0.0.0.0:0", "[::]:0"}) {
        std::unique_ptr<Listener> listener;
        ASSERT_EQ(side_.device->listen(wildcard, 4, &listener), 0) << wildcard;
        const std::string address = listener->address();
        EXPECT_EQ(address.find("0.0.0.0"), std::string::npos) << address;
        EXPECT_EQ(address.find("[::]"), std::string::npos) << address;
        EXPECT_FALSE(address.ends_with(":0")) << address;

        ASSERT_EQ(side_.device->connect(address, side_.options(), nullptr, 0, &side_.pair), 0);
        std::unique_ptr<ConnectionRequest> request;
        ASSERT_TRUE(eventually([&] {
            std::vector<uint8_t> data;
            EXPECT_EQ(side_.pair->next_event(&data), ConnectionEvent::kNone)
                << std::string(data.begin(), data.end());
            return listener->next(&request) == 0;
        })) << address;
        side_.pair.reset();
    }
}

TEST_F(VerbsTest, AddressesThatAreNoneAreRefusedAtOnce) {
    std::unique_ptr<Listener> listener;
    for (const char* text : {"", ":", "10.0.0.1", "10.0.0.1:", ":7000", "10.0.0.1:65536",
                             "10.0.0.1:-1", "10.0.0.1:7x", "10.0.0.256:7000", "localhost:7000",
                             "fd00::1:7000", "[fd00::1]", "[]:7000", "[10.0.0.1]:7000"}) {
        EXPECT_EQ(side_.device->listen(text, 1, &listener), -EINVAL) << text;
        EXPECT_EQ(side_.device->connect(text, side_.options(), nullptr, 0, &side_.pair), -EINVAL)
            << text;
    }
    EXPECT_LT(side_.device->listen("192.0.2.1:0", 1, &listener), 0) << "not of this host";
}

TEST_F(VerbsTest, APortThatIsTakenIsSaidToBe) {
    std::unique_ptr<Listener> first;
    std::unique_ptr<Listener> second;
    ASSERT_EQ(side_.device->listen(own_host("0.0.0.0:0") + ":0", 1, &first), 0);
    EXPECT_EQ(side_.device->listen(first->address(), 1, &second), -EADDRINUSE);
    const std::string address = first->address();
    first.reset();
    EXPECT_EQ(side_.device->listen(address, 1, &second), 0) << "and is free again at once";
}

TEST_F(VerbsTest, APortWithoutAListenerIsUnreachable) {
    const std::string address = own_host("0.0.0.0:0") + ":1";
    const Event event = connect_to(address);
    EXPECT_EQ(event.type, ConnectionEvent::kUnreachable);
    EXPECT_EQ(event.text(), address + ": nothing listens there");
    EXPECT_EQ(side_.pair->state(), QueuePairState::kError);
}

TEST_F(VerbsTest, AHostThatDoesNotAnswerIsUnreachableWithinSeconds) {
    // An address that is reserved for documentation: without a route, or with a silent one.
    const uint64_t begin = monotonic_ns();
    const Event event = connect_to("192.0.2.1:7000");
    EXPECT_EQ(event.type, ConnectionEvent::kUnreachable);
    EXPECT_NE(event.text().find("192.0.2.1:7000: "), std::string::npos) << event.text();
    EXPECT_LT(monotonic_ns() - begin, uint64_t{10'000'000'000});
}

TEST_F(VerbsTest, AnAnswerMayFollowTheFirstMessageBeforeTheEstablishedEvent) {
    std::unique_ptr<Listener> listener;
    Side server;
    std::string reason;
    ASSERT_EQ(server.open("verbs", kRemoteWrite, &reason), 0);
    ASSERT_EQ(server.device->listen("0.0.0.0:0", 1, &listener), 0);
    ASSERT_EQ(side_.device->connect(listener->address(), side_.options(), nullptr, 0, &side_.pair),
              0);
    side_.post_receives(1);
    std::unique_ptr<ConnectionRequest> request;
    ASSERT_TRUE(eventually([&] {
        std::vector<uint8_t> none;
        (void)side_.pair->next_event(&none);
        return listener->next(&request) == 0;
    }));
    ASSERT_EQ(request->prepare(server.options(), &server.pair), 0);
    server.post_receives(1);
    ASSERT_EQ(request->accept(server.pair.get(), nullptr, 0), 0);
    ASSERT_EQ(next_event(*side_.pair).type, ConnectionEvent::kEstablished);
    ASSERT_EQ(side_.pair->post_send(side_.request(Opcode::kSend, 0, 0)), 0);

    // The server looks at its completions only.
    EXPECT_EQ(server.take().status, Status::kSuccess);
    EXPECT_EQ(server.pair->state(), QueuePairState::kConnected);
    EXPECT_EQ(server.pair->post_send(server.request(Opcode::kSend, 0, 0)), 0);
    EXPECT_EQ(side_.take().status, Status::kSuccess);
    EXPECT_EQ(next_event(*server.pair).type, ConnectionEvent::kEstablished);
    std::vector<uint8_t> none;
    EXPECT_EQ(server.pair->next_event(&none), ConnectionEvent::kNone) << "established once";
}

// A program that is not ours may connect with any private data.
TEST_F(VerbsTest, AStrangersRequestIsRejectedAndTheListenerGoesOn) {
    std::unique_ptr<Listener> listener;
    ASSERT_EQ(side_.device->listen("0.0.0.0:0", 4, &listener), 0);
    const std::string address = listener->address();
    const size_t colon = address.rfind(':');
    rdma_addrinfo hints = {};
    hints.ai_port_space = RDMA_PS_TCP;
    rdma_addrinfo* found = nullptr;
    ASSERT_EQ(rdma_getaddrinfo(address.substr(0, colon).c_str(), address.substr(colon + 1).c_str(),
                               &hints, &found),
              0);
    rdma_cm_id* stranger = nullptr;
    ibv_qp_init_attr attributes = {};
    attributes.cap = {1, 1, 1, 1, 0};
    attributes.qp_type = IBV_QPT_RC;
    ASSERT_EQ(rdma_create_ep(&stranger, found, nullptr, &attributes), 0);
    rdma_freeaddrinfo(found);
    ASSERT_EQ(rdma_migrate_id(stranger, rdma_create_event_channel()), 0);
    const std::vector<uint8_t> garbage(56, 0xee);
    rdma_conn_param param = {};
    param.private_data = garbage.data();
    param.private_data_len = static_cast<uint8_t>(garbage.size());
    ASSERT_EQ(rdma_connect(stranger, &param), 0);

    std::unique_ptr<ConnectionRequest> request;
    ASSERT_TRUE(readable(listener->fd(), kPatienceMs));
    EXPECT_EQ(listener->next(&request), -EAGAIN) << "it is not handed on";
    rdma_cm_event* event = nullptr;
    ASSERT_EQ(rdma_get_cm_event(stranger->channel, &event), 0);
    EXPECT_EQ(event->event, RDMA_CM_EVENT_REJECTED);
    rdma_ack_cm_event(event);
    rdma_event_channel* channel = stranger->channel;
    rdma_destroy_ep(stranger);
    rdma_destroy_event_channel(channel);

    ASSERT_EQ(side_.device->connect(address, side_.options(), nullptr, 0, &side_.pair), 0);
    EXPECT_TRUE(eventually([&] {
        std::vector<uint8_t> none;
        (void)side_.pair->next_event(&none);
        return listener->next(&request) == 0;
    }));
}

}  // namespace rfaas::fabric
