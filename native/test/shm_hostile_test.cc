// Strangers at the shm provider's door, and peers that turn hostile once they are in. They speak
// the socket themselves and write what they like into shared memory; whatever they do, it costs
// them their own connection and nothing else.
#include <random>

#include "test/fabric_link.h"
#include "test/shm_stranger.h"

namespace rfaas::fabric {

namespace {

using rfaas::UniqueFd;
using shm::connect_raw;
using shm::KeyTable;
using shm::kSealed;
using shm::listen_raw;
using shm::Message;
using shm::MessageType;
using shm::plain_memfd;
using shm::QueueControl;
using shm::send_raw;
using shm::Stranger;

class HostileTest : public FabricTest {
  protected:
    void SetUp() override {
        FabricTest::SetUp();
        ASSERT_EQ(server_.device->allocate(4096, kRemoteRead, &read_only_), 0);
        ASSERT_EQ(server_.device->allocate(4096, 0, &local_), 0);
        // Nothing that a stranger does may change these.
        std::memset(server_.region->data(), 0x11, Side::kBytes);
        std::memset(local_->data(), 0x22, 4096);
        listen();
    }

    void TearDown() override {
        server_.pair.reset();
        read_only_.reset();
        local_.reset();
        FabricTest::TearDown();
    }

    // An established connection to `stranger`, with receives of 64 bytes in the local region.
    void let_in(Stranger& stranger, uint32_t receives = 4, uint8_t rnr_retry = 7) {
        ASSERT_TRUE(stranger.send_hello(listener_->address()));
        std::unique_ptr<ConnectionRequest> request;
        ASSERT_TRUE(eventually([&] { return listener_->next(&request) == 0; }));
        QueuePairOptions options = server_.options();
        options.rnr_retry = rnr_retry;
        ASSERT_EQ(request->prepare(options, &server_.pair), 0);
        for (uint32_t i = 0; i < receives; ++i) {
            ReceiveRequest receive;
            receive.id = 1000 + i;
            receive.segment = {local_->data() + 1024, 64, local_.get()};
            ASSERT_EQ(server_.pair->post_receive(receive), 0);
        }
        ASSERT_EQ(request->accept(server_.pair.get(), nullptr, 0), 0);
        ASSERT_EQ(next_event(*server_.pair).type, ConnectionEvent::kEstablished);
        Message welcome;
        ASSERT_TRUE(stranger.take_greeting(MessageType::kWelcome, &welcome));
        stranger.take_regions();
        ASSERT_EQ(stranger.regions.size(), 2u);
    }

    // The listener gives nothing to its caller and still serves those who behave.
    void expect_refused() {
        std::unique_ptr<ConnectionRequest> request;
        if (readable(listener_->fd(), kPatienceMs)) {
            EXPECT_EQ(listener_->next(&request), -EAGAIN);
        }
    }

    void expect_failed() {
        EXPECT_TRUE(eventually([&] {
            server_.poll();
            return server_.pair->state() == QueuePairState::kError;
        }));
        EXPECT_EQ(server_.pair->post_send(server_.request(Opcode::kSend, 0, 0)), -ENOTCONN);
        EXPECT_EQ(local_->in_flight(), 0u);
        EXPECT_EQ(server_.region->in_flight(), 0u);
    }

    void expect_untouched() {
        for (size_t i = 0; i < Side::kBytes; ++i) {
            ASSERT_EQ(server_.region->data()[i], 0x11) << "byte " << i << " of the region";
        }
        for (size_t i = 0; i < 4096; ++i) {
            if (i >= 1024 && i < 1024 + 64) continue;  // the receives
            ASSERT_EQ(local_->data()[i], 0x22) << "local " << i;
        }
    }

    void forget() {
        server_.pair.reset();
        server_.seen.clear();
        server_.poll();
        server_.seen.clear();
    }

    std::unique_ptr<MemoryRegion> read_only_, local_;
};

}  // namespace

// ── at the door ─────────────────────────────────────────────────────────────────────────────────

TEST_P(HostileTest, AListenerDropsStrangersAndServesOn) {
    const Stranger good;
    const int queue = good.inbound_fd.get();
    const int keys = good.keys_fd.get();
    const auto hello_with = [&](auto change) {
        Message message = good.hello();
        change(message);
        return std::string(reinterpret_cast<const char*>(&message), sizeof message);
    };
    const std::string hello = hello_with([](Message&) {});
    const struct {
        const char* what;
        std::string bytes;
        std::vector<int> fds;
    } cases[] = {
        {"one byte", "x", {}},
        {"an HTTP client", "GET / HTTP/1.1\r\n\r\n", {}},
        {"garbage of a message's size", std::string(sizeof(Message), '\xee'), {queue, keys}},
        {"a message and a byte", hello + "x", {queue, keys}},
        {"half a message", hello.substr(0, sizeof(Message) / 2), {queue, keys}},
        {"wrong magic", hello_with([](Message& m) { m.magic ^= 1; }), {queue, keys}},
        {"wrong version", hello_with([](Message& m) { m.version = 2; }), {queue, keys}},
        {"a wake-up", hello_with([](Message& m) { m.type = MessageType::kWake; }), {queue, keys}},
        {"a welcome",
         hello_with([](Message& m) { m.type = MessageType::kWelcome; }),
         {queue, keys}},
        {"an unknown type",
         hello_with([](Message& m) { m.type = MessageType(99); }),
         {queue, keys}},
        {"no queue", hello, {}},
        {"one descriptor", hello, {queue}},
        {"three descriptors", hello, {queue, keys, keys}},
        {"sixteen descriptors", hello, std::vector<int>(16, keys)},
        {"a ring of no depth",
         hello_with([](Message& m) { m.shape.ring_depth = 0; }),
         {queue, keys}},
        {"a depth that is no power of two",
         hello_with([](Message& m) { m.shape.ring_depth = 24; }),
         {queue, keys}},
        {"an enormous depth",
         hello_with([](Message& m) { m.shape.receive_depth = 1u << 31; }),
         {queue, keys}},
        {"too much private data",
         hello_with([](Message& m) { m.private_bytes = 49; }),
         {queue, keys}},
        {"absurd private data",
         hello_with([](Message& m) { m.private_bytes = ~0u; }),
         {queue, keys}},
    };
    for (const auto& [what, bytes, fds] : cases) {
        SCOPED_TRACE(what);
        const UniqueFd socket = connect_raw(listener_->address());
        ASSERT_TRUE(send_raw(socket.get(), bytes.data(), bytes.size(), fds));
        expect_refused();
        char byte = 0;
        EXPECT_LE(::recv(socket.get(), &byte, 1, 0), 0) << "it is hung up on";
    }
    connect_raw(listener_->address());  // says nothing and goes
    expect_refused();
    connect();
}

TEST_P(HostileTest, ManySilentStrangersDoNotKeepAClientOut) {
    std::vector<UniqueFd> silent;
    std::unique_ptr<ConnectionRequest> request;
    for (int i = 0; i < 300; ++i) {
        silent.push_back(connect_raw(listener_->address()));
        EXPECT_EQ(listener_->next(&request), -EAGAIN);
    }
    connect();
}

TEST_P(HostileTest, MemoryThatCouldShrinkOrIsTooShortIsNotMapped) {
    const Stranger good;
    const size_t bytes = good.shape.bytes();
    const UniqueFd unsealed = plain_memfd(bytes, 0);
    const UniqueFd too_short = plain_memfd(bytes - 4096, kSealed);
    const UniqueFd read_only = plain_memfd(bytes, kSealed | F_SEAL_WRITE);
    const UniqueFd few_keys = plain_memfd(4096, kSealed);
    const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int queue = good.inbound_fd.get();
    const int keys = good.keys_fd.get();
    const struct {
        const char* what;
        std::vector<int> fds;
    } cases[] = {
        {"a memfd that is not sealed", {unsealed.get(), keys}},
        {"a queue that is too short", {too_short.get(), keys}},
        {"a queue that cannot be written", {read_only.get(), keys}},
        {"a file", {file.get(), keys}},
        {"a device", {null.get(), keys}},
        {"a key table that is too short", {queue, few_keys.get()}},
        {"a key table that is a file", {queue, file.get()}},
    };
    for (const auto& [what, fds] : cases) {
        SCOPED_TRACE(what);
        const UniqueFd socket = connect_raw(listener_->address());
        const Message hello = good.hello();
        ASSERT_TRUE(send_raw(socket.get(), &hello, sizeof hello, fds));
        std::unique_ptr<ConnectionRequest> request;
        ASSERT_TRUE(eventually([&] { return listener_->next(&request) == 0; }));
        ASSERT_EQ(request->prepare(server_.options(), &server_.pair), 0);
        EXPECT_LT(request->accept(server_.pair.get(), nullptr, 0), 0);
        EXPECT_NE(server_.pair->state(), QueuePairState::kConnected);
        forget();
    }
    connect();
}

TEST_P(HostileTest, AClientSurvivesAServerThatIsNone) {
    const std::string path = fresh_address();
    const UniqueFd door = listen_raw(path);
    const Stranger good;
    const UniqueFd unsealed = plain_memfd(good.shape.bytes(), 0);
    Message welcome = good.hello();
    welcome.type = MessageType::kWelcome;
    Message deep = welcome;
    deep.shape.ring_depth = 3;
    Message region;
    region.type = MessageType::kRegion;
    const struct {
        const char* what;
        const Message* message;
        size_t bytes;
        std::vector<int> fds;
    } cases[] = {
        {"a few bytes", &welcome, 7, {}},
        {"a welcome without queues", &welcome, sizeof welcome, {}},
        {"a queue that can shrink", &welcome, sizeof welcome, {unsealed.get(), good.keys_fd.get()}},
        {"an impossible shape", &deep, sizeof deep, {good.inbound_fd.get(), good.keys_fd.get()}},
        {"a region before the welcome", &region, sizeof region, {good.inbound_fd.get()}},
    };
    for (const auto& [what, message, bytes, fds] : cases) {
        SCOPED_TRACE(what);
        ASSERT_EQ(client_.device->connect(path, client_.options(), nullptr, 0, &client_.pair), 0);
        client_.post_receives(1);
        const UniqueFd socket(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
        ASSERT_TRUE(send_raw(socket.get(), message, bytes, fds));
        EXPECT_EQ(next_event(*client_.pair).type, ConnectionEvent::kUnreachable);
        EXPECT_EQ(client_.take().status, Status::kFlushed);
        client_.pair.reset();
    }
}

// ── inside ──────────────────────────────────────────────────────────────────────────────────────

TEST_P(HostileTest, AStrangerWhoBehavesIsServed) {
    Stranger stranger;
    ASSERT_NO_FATAL_FAILURE(let_in(stranger));
    const Message& region = stranger.regions[0].message;
    stranger.forge(0, shm::kTagInline | uint32_t(Opcode::kWriteImm), 8, region.rkey,
                   region.address);
    const Completion received = server_.take();
    EXPECT_EQ(received.status, Status::kSuccess);
    EXPECT_EQ(received.immediate, 0xabcdef01);
    EXPECT_EQ(server_.region->data()[7], 0xcc);
    EXPECT_EQ(server_.region->data()[8], 0x11);
}

TEST_P(HostileTest, AForgedDescriptorEndsItsOwnConnection) {
    const uint32_t write = uint32_t(Opcode::kWriteImm);
    const uint32_t send = uint32_t(Opcode::kSend);
    const uint32_t none = 0;
    enum Key { kGood, kReadOnly, kWrong };
    const struct {
        const char* what;
        uint32_t tag;
        uint32_t length;
        Key key;
        int64_t offset;  // from the begin of the region
    } cases[] = {
        {"an inline write longer than a descriptor", shm::kTagInline | write, 4096, kGood, 0},
        {"a length of all ones", shm::kTagInline | write, ~0u, kGood, 0},
        {"an inline write behind the region", shm::kTagInline | write, 8, kGood, Side::kBytes - 7},
        {"an inline write before the region", shm::kTagInline | write, 8, kGood, -8},
        {"an address that wraps", shm::kTagInline | write, 200, kGood, INT64_MIN},
        {"a wrong key", shm::kTagInline | write, 8, kWrong, 0},
        {"a region that is for reading", shm::kTagInline | write, 8, kReadOnly, 0},
        {"a long write outside", write, 1u << 31, kGood, 0},
        {"a send behind the bounce area", send, 64, kWrong, shm::kBounceBytes - 63},
        {"a send far behind the bounce area", send, 64, kWrong, int64_t{1} << 40},
        {"a send longer than the receive", shm::kTagInline | send, 65, kWrong, 0},
        {"a fragment longer than the receive", shm::kTagMore | send, shm::kBounceBytes, kWrong, 0},
        {"an inline send longer than a descriptor", shm::kTagInline | send, 5000, kWrong, 0},
        {"an empty fragment", shm::kTagInline | shm::kTagMore | send, none, kWrong, 0},
        {"a send that says it is too long", shm::kTagTooLong | send, 8, kWrong, 0},
        {"a read", shm::kTagInline | uint32_t(Opcode::kRead), 8, kGood, 0},
        {"an atomic", shm::kTagInline | uint32_t(Opcode::kFetchAdd), 8, kGood, 0},
        {"an unknown opcode", shm::kTagInline | 0xf, 8, kGood, 0},
    };
    for (const auto& [what, tag, length, key, offset] : cases) {
        SCOPED_TRACE(what);
        Stranger stranger;
        ASSERT_NO_FATAL_FAILURE(let_in(stranger));
        const bool is_send = (tag & 0xf) == send;
        const uint64_t base = is_send ? 0 : stranger.regions[0].message.address;
        const RemoteKey readable_key = read_only_->remote_key();
        const uint32_t rkey = key == kGood       ? stranger.regions[0].message.rkey
                              : key == kReadOnly ? static_cast<uint32_t>(readable_key.rkey)
                                                 : stranger.regions[0].message.rkey ^ 0x7000;
        const uint64_t address = key == kReadOnly ? readable_key.address : base + uint64_t(offset);
        stranger.forge(0, tag, length, rkey, address);
        expect_failed();
        for (const Completion& completion : server_.seen) {
            EXPECT_NE(completion.status, Status::kSuccess);
        }
        EXPECT_EQ(server_.seen.size(), 4u) << "every receive completes once";
        expect_untouched();
        forget();
    }
}

TEST_P(HostileTest, MessagesWithoutAReceiveEndTheConnection) {
    Stranger stranger;
    ASSERT_NO_FATAL_FAILURE(let_in(stranger, 2));
    for (uint64_t position = 0; position < 3; ++position) {
        stranger.forge(position, shm::kTagInline | uint32_t(Opcode::kSend), 0, 0, 0);
    }
    expect_failed();
    EXPECT_EQ(server_.seen.size(), 2u);
}

TEST_P(HostileTest, ADescriptorOfAnotherLapIsNotTaken) {
    Stranger stranger;
    ASSERT_NO_FATAL_FAILURE(let_in(stranger));
    stranger.forge(stranger.their_shape.ring_depth, shm::kTagInline | uint32_t(Opcode::kSend), 0, 0,
                   0);
    EXPECT_FALSE(eventually(
        [&] {
            server_.poll();
            return !server_.seen.empty();
        },
        50));
    EXPECT_EQ(server_.pair->state(), QueuePairState::kConnected);
}

TEST_P(HostileTest, ImpossibleCountersEndTheConnection) {
    const struct {
        const char* what;
        void (*forge)(QueueControl*);
    } cases[] = {
        {"more receives than the queue has",
         [](QueueControl* control) { control->receives.store(17); }},
        {"all receives of the world",
         [](QueueControl* control) { control->receives.store(~0ull); }},
        {"messages taken that were never sent",
         [](QueueControl* control) {
             control->receives.store(16);
             control->consumed.store(1000);
         }},
        {"messages given back",
         [](QueueControl* control) {
             control->receives.store(16);
             control->consumed.store(~0ull);
         }},
    };
    for (const auto& [what, forge] : cases) {
        SCOPED_TRACE(what);
        Stranger stranger;
        ASSERT_NO_FATAL_FAILURE(let_in(stranger));
        forge(stranger.control());
        for (int i = 0; i < 16; ++i) stranger.lengths()[i].store(~0u);
        // More than its bounce area takes at once: the counters must be looked at.
        SendRequest request = server_.request(Opcode::kSend, 0, 1 << 20);
        ASSERT_EQ(server_.pair->post_send(request), 0);
        expect_failed();
        EXPECT_EQ(server_.seen.size(), 5u) << "the send and four receives, once each";
        forget();
    }
}

TEST_P(HostileTest, ForgedMessagesOnTheSocketEndTheConnection) {
    const UniqueFd page = plain_memfd(4096, kSealed);
    const UniqueFd unsealed = plain_memfd(4096, 0);
    const auto region = [](uint64_t address, uint64_t length) {
        Message message;
        message.type = MessageType::kRegion;
        message.rkey = 0x5000;
        message.access = kRemoteWrite;
        message.address = address;
        message.length = length;
        return message;
    };
    Message second_hello;
    second_hello.type = MessageType::kHello;
    Message refusal;
    refusal.type = MessageType::kRefuse;
    Message unknown;
    unknown.type = MessageType(77);
    const struct {
        const char* what;
        Message message;
        std::vector<int> fds;
    } cases[] = {
        {"a region longer than its memory", region(0, 8192), {page.get()}},
        {"a region of no length", region(0, 0), {page.get()}},
        {"a region that wraps", region(~0ull - 100, 4096), {page.get()}},
        {"a region without memory", region(0, 4096), {}},
        {"a region that can shrink", region(0, 4096), {unsealed.get()}},
        {"a region as large as can be said", region(0, ~0ull), {page.get()}},
        {"a second hello", second_hello, {page.get(), page.get()}},
        {"a refusal of what was accepted", refusal, {}},
        {"an unknown message", unknown, {}},
    };
    for (const auto& [what, message, fds] : cases) {
        SCOPED_TRACE(what);
        Stranger stranger;
        ASSERT_NO_FATAL_FAILURE(let_in(stranger));
        ASSERT_TRUE(send_raw(stranger.socket.get(), &message, sizeof message, fds));
        expect_failed();
        forget();
    }
}

TEST_P(HostileTest, RandomBytesInTheQueuesHarmNobodyElse) {
    std::minstd_rand random(20240229);
    for (int round = 0; round < 200; ++round) {
        SCOPED_TRACE(round);
        Stranger stranger;
        ASSERT_NO_FATAL_FAILURE(let_in(stranger, 4, 1));
        const auto scribble = [&](uint8_t* begin, size_t bytes) {
            for (size_t i = 0; i < bytes; ++i) begin[i] = static_cast<uint8_t>(random() >> 8);
        };
        if (round % 2 == 0)
            scribble(stranger.outbound.data(), stranger.their_shape.bounce_offset());
        if (round % 3 == 0) scribble(stranger.inbound.data(), stranger.shape.bounce_offset());
        if (round % 5 == 0) scribble(stranger.keys.data(), stranger.keys.bytes());
        for (uint64_t position = 0; position < 8; ++position) {
            // Plausible enough to get past the first checks, now and then.
            stranger.forge(position, (random() % 16) << 4 | random() % 9, random() % 512,
                           stranger.regions[random() % 2].message.rkey,
                           stranger.regions[0].message.address + random() % (2 * Side::kBytes));
        }
        SendRequest request = server_.request(Opcode(random() % 7), 0, random() % 70'000);
        request.rkey = random();
        (void)server_.pair->post_send(request);
        for (int i = 0; i < 200; ++i) server_.poll();
        for (const Completion& completion : server_.seen) {
            EXPECT_TRUE(completion.status != Status::kSuccess || completion.byte_length <= 70'000);
        }
        forget();
        EXPECT_EQ(local_->in_flight(), 0u);
        EXPECT_EQ(server_.region->in_flight(), 0u);
        for (size_t i = 0; i < 4096; ++i) {
            if (i >= 1024 && i < 1024 + 64) continue;  // the receives
            ASSERT_EQ(local_->data()[i], 0x22) << "local " << i;
        }
    }
    connect();  // and the device is none the worse
}

INSTANTIATE_TEST_SUITE_P(Providers, HostileTest, testing::Values("shm"),
                         [](const auto& info) { return info.param; });

}  // namespace rfaas::fabric
