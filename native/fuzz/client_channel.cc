// The client's end of the invocation protocol: a worker that the client trusts with nothing but its
// own calls. Every call has one outcome, whatever the worker writes.
#include "invocation/client_channel.h"

#include "fuzz/script.h"
#include "test/shm_stranger.h"

using namespace rfaas;
using fabric::shm::Message;
using fabric::shm::MessageType;
using fabric::shm::Stranger;
using fuzz::Script;

namespace {

constexpr uint32_t kSlots = 4;
constexpr size_t kOwnBytes = 256 * 1024;  // of the memory that the worker offers
constexpr uint32_t kSlotsKey = 0x7005, kTableKey = 0x9006;
constexpr uint64_t kSlotsAddress = 0x100000, kTableAddress = 0x200000;

struct Client {
    std::unique_ptr<fabric::Device> device;
    std::unique_ptr<fabric::MemoryRegion> memory;    // the calls' inputs and outputs
    std::unique_ptr<fabric::MemoryRegion> private_;  // the worker has no business in it
    Client() {
        std::string reason;
        FUZZ_CHECK(fabric::open_device("shm", "", &device, &reason) == 0);
        FUZZ_CHECK(device->allocate(64 * 1024, fabric::kRemoteWrite, &memory) == 0);
        FUZZ_CHECK(device->allocate(4096, 0, &private_) == 0);
        std::memset(private_->data(), 0x22, 4096);
    }
};

class Scene {
  public:
    explicit Scene(Client& client)
        : client_(client),
          channel_(client.device.get(), {.workers = 1, .slots = kSlots}),
          worker_(64) {
        FUZZ_CHECK(channel_.open() == 0);
        FUZZ_CHECK(channel_.add_region(client.memory.get()) == 1);
    }

    // The handshake, as the script bends it. False: the client has seen through it.
    [[nodiscard]] bool connect(Script& script) {
        static const std::string path = fuzz::folder() + "/worker";
        static const UniqueFd door = fabric::shm::listen_raw(path);
        static const UniqueFd memory = fabric::shm::plain_memfd(kOwnBytes, fabric::shm::kSealed);
        const uint8_t ticket[wire::kTicketBytes] = {};
        FUZZ_CHECK(channel_.connect(0, path, ticket) == 0);
        worker_.socket.reset(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
        Message hello;
        FUZZ_CHECK(worker_.take_greeting(MessageType::kHello, &hello));

        wire::Welcome welcome;
        welcome.slot_count = kSlots;
        welcome.payload_bytes = 1024;
        welcome.output_bytes = 4096;
        welcome.function_count = 3;
        welcome.slots = {kSlotsAddress, kSlots * wire::slot_stride(1024), kSlotsKey};
        welcome.regions = {kTableAddress, sizeof(wire::Region) * wire::kMaxRegions, kTableKey};
        if (script.choose(4) == 0) script.patch(&welcome);
        Message message =
            worker_.greeting(script.choose(16) == 0 ? MessageType::kRefuse : MessageType::kWelcome);
        message.private_bytes = sizeof welcome;
        if (script.choose(16) == 0) message.private_bytes = script.choose(192);
        std::memcpy(message.private_data, &welcome, sizeof welcome);
        (void)worker_.send(message, {worker_.inbound_fd.get(), worker_.keys_fd.get()});
        (void)worker_.announce(kSlotsKey, fabric::kRemoteWrite, kSlotsAddress, kOwnBytes,
                               memory.get());
        (void)worker_.announce(kTableKey, fabric::kRemoteWrite, kTableAddress, kOwnBytes,
                               memory.get());
        take_requests();
        std::string reason;
        const auto progress = channel_.connect_step(0, &reason);
        FUZZ_CHECK(progress == invocation::ConnectProgress::kConnected || !reason.empty());
        if (progress != invocation::ConnectProgress::kConnected) return false;
        worker_.take_regions();
        return true;
    }

    void step(Script& script) {
        switch (script.choose(8)) {
            case 0:
            case 1:
                return submit(script);
            case 2:
            case 3:
            case 4:
                return reply(script);
            case 5:
                return regions(script);
            case 6:
                (void)channel_.arm();
                channel_.acknowledge();
                return;
            default:
                take_requests();
                return poll();
        }
    }

    void finish() {
        channel_.disconnect(0);
        channel_.abandon(0, forged_);
        poll();
        FUZZ_CHECK(channel_.in_flight() == 0);
        for (const uint32_t owed : owed_) FUZZ_CHECK(owed == 0);
        FUZZ_CHECK(client_.memory->in_flight() == 0);
        for (size_t i = 0; i < 4096; ++i) FUZZ_CHECK(client_.private_->data()[i] == 0x22);
    }

  private:
    void submit(Script& script) {
        invocation::CallRequest call;
        call.slot = script.choose(kSlots + 1);
        call.function = script.choose(4);
        call.input_region = 1;
        call.input_offset = script.take<uint16_t>();
        call.input_length = script.take<uint16_t>() % 1200;
        call.output_region = 1;
        call.output_offset = script.take<uint8_t>();
        call.output_capacity = script.take<uint16_t>();
        if (script.choose(4) != 0) {
            if (channel_.submit(call) == 0) ++owed_[call.slot];
            return;
        }
        invocation::CallOutcome outcome;
        Spinner spinner(0);
        const int rc = channel_.call(call, &spinner, &outcome);
        if (rc == 0 || rc == -ECONNRESET) ++owed_[call.slot];
        if (rc < 0) return;
        // Given up: the slot stays taken until its reply is in, or the worker lost.
        const auto deadline = static_cast<uint32_t>(wire::CallStatus::kDeadline);
        if (outcome.status != deadline || outcome.length != 0) settle(outcome);
    }

    // What a worker writes where the client's replies come from.
    void reply(Script& script) {
        const fabric::RemoteKey memory = client_.memory->remote_key();
        uint64_t address = memory.address + script.take<uint16_t>();
        auto rkey = static_cast<uint32_t>(memory.rkey);
        switch (script.choose(4)) {
            case 0:
                rkey = static_cast<uint32_t>(client_.private_->remote_key().rkey);
                address = client_.private_->remote_key().address;
                break;
            case 1:  // the region of error texts, which is the channel's own
                if (worker_.regions.empty()) break;
                rkey = worker_.regions.back().message.rkey;
                address = worker_.regions.back().message.address + script.take<uint16_t>();
                break;
            default:
                break;
        }
        const uint32_t length = script.take<uint16_t>() % 300;
        uint32_t immediate = script.choose(kSlots) | script.choose(9) << 16;
        if (script.choose(16) == 0) immediate = script.take<uint32_t>();
        const uint32_t flags = script.choose(2) != 0 ? fabric::shm::kTagInline : 0;
        worker_.forge(forged_++, flags | uint32_t(fabric::Opcode::kWriteImm), length, rkey, address,
                      immediate);
        poll();
    }

    void poll() {
        invocation::CallOutcome outcomes[4];
        for (int i = 0; i < 4; ++i) {
            const int count = channel_.poll(outcomes, 4);
            FUZZ_CHECK(count >= 0 && count <= 4);
            for (int k = 0; k < count; ++k) settle(outcomes[k]);
        }
    }

    void settle(const invocation::CallOutcome& outcome) {
        FUZZ_CHECK(outcome.worker == 0);
        if (outcome.slot == invocation::kWorkerDown) return;
        FUZZ_CHECK(outcome.slot < kSlots && owed_[outcome.slot] == 1);
        owed_[outcome.slot] = 0;
        const std::string_view text = channel_.error_text(0, outcome.slot, outcome.length);
        FUZZ_CHECK(text.size() <= wire::kErrorTextBytes);
        FUZZ_CHECK(std::string(text).size() == text.size());  // reads it
    }

    // Takes what the client has sent and makes room for more.
    void take_requests() {
        fabric::shm::QueueControl* control = worker_.control();
        control->receives.store(control->receives.load() + 1);
    }

    void regions(Script& script) {
        if (script.choose(2) != 0) {
            (void)channel_.add_region(client_.memory.get());
        } else {
            channel_.remove_region(2 + script.choose(4));
        }
    }

    Client& client_;
    invocation::ClientChannel channel_;
    Stranger worker_;
    uint32_t owed_[kSlots + 1] = {};
    uint64_t forged_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    static Client client;
    Script script(data, bytes);
    Scene scene(client);
    if (scene.connect(script)) {
        while (script.more()) scene.step(script);
    }
    scene.finish();
    return 0;
}
