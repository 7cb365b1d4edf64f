// The queues in shared memory: a connected peer rewrites descriptors, counters, keys and lengths
// between any two steps of ours.
#include "test/shm_stranger.h"

#include "fuzz/shm_victim.h"

using namespace rfaas;
using fabric::Opcode;
using fabric::shm::Message;
using fabric::shm::MessageType;
using fabric::shm::Stranger;
using fuzz::Script;
using fuzz::Victim;

namespace {

constexpr uint32_t kOwnKey = 0x7005;  // of the region that the stranger offers
constexpr size_t kOwnBytes = 64 * 1024;
constexpr uint64_t kOwnAddress = 0x10000;

class Scene {
  public:
    Scene(Victim& victim, fabric::Listener& listener) : victim_(victim) {
        FUZZ_CHECK(stranger_.send_hello(listener.address()));
        std::unique_ptr<fabric::ConnectionRequest> request;
        FUZZ_CHECK(listener.next(&request) == 0);
        FUZZ_CHECK(request->prepare(victim.options(), &victim.pair) == 0);
        for (int i = 0; i < 4; ++i) victim.post_receive(64);
        FUZZ_CHECK(request->accept(victim.pair.get(), nullptr, 0) == 0);
        victim.next_event();
        Message welcome;
        FUZZ_CHECK(stranger_.take_greeting(MessageType::kWelcome, &welcome));
        stranger_.take_regions();
        FUZZ_CHECK(stranger_.regions.size() == 2);
        static const UniqueFd memory = fabric::shm::plain_memfd(kOwnBytes, fabric::shm::kSealed);
        FUZZ_CHECK(stranger_.announce(kOwnKey, 7, kOwnAddress, kOwnBytes, memory.get()));
    }

    void step(Script& script) {
        switch (script.choose(16)) {
            case 0:
                return victim_.post_receive(script.take<uint8_t>());
            case 1:
            case 2:
                return send(script);
            case 3:
            case 4:
                return victim_.poll();
            case 5:
            case 6:
            case 7:
                return forge(script);
            case 8:
                return count(script);
            case 9:
                return stranger_.lengths()[script.choose(stranger_.shape.receive_depth)].store(
                    script.take<uint32_t>());
            case 10:
                return stranger_.set_key(kOwnKey, script.choose(2) != 0 ? kOwnKey : 0);
            case 11:  // the peer behaves for once
                stranger_.control()->receives.fetch_add(4);
                stranger_.control()->consumed.fetch_add(script.choose(4));
                return;
            case 12:
                (void)victim_.queue->arm();
                return victim_.queue->acknowledge();
            case 13:
                (void)stranger_.send(Message());
                return victim_.next_event();
            case 14:
                return scribble(script);
            default:
                return reallocate(script);
        }
    }

    void finish() {
        victim_.finish();
        spare_.reset();
    }

  private:
    // The keys and addresses that are worth trying: of each kind of region, and of none.
    void choose_target(Script& script, uint32_t* rkey, uint64_t* address) const {
        const uint32_t choice = script.choose(5);
        const int64_t offset = script.take<int16_t>();
        if (choice < 2) {
            *rkey = stranger_.regions[choice].message.rkey;
            *address = stranger_.regions[choice].message.address + static_cast<uint64_t>(offset);
        } else if (choice == 2) {
            *rkey = static_cast<uint32_t>(victim_.private_->remote_key().rkey);
            *address = victim_.private_->remote_key().address + static_cast<uint64_t>(offset);
        } else if (choice == 3 && spare_ != nullptr) {
            *rkey = static_cast<uint32_t>(spare_->remote_key().rkey);
            *address = spare_->remote_key().address + static_cast<uint64_t>(offset);
        } else {
            *rkey = script.take<uint32_t>();
            *address = script.take<uint64_t>();
        }
    }

    void send(Script& script) {
        fabric::SendRequest request;
        request.opcode = Opcode(script.choose(8));
        request.flags = script.choose(2) != 0 ? fabric::kSignaled : 0;
        const bool atomic =
            request.opcode == Opcode::kFetchAdd || request.opcode == Opcode::kCompareSwap;
        const uint32_t length = atomic ? 8 : script.take<uint16_t>() * script.choose(3);
        const bool fits = length <= victim_.pair->inline_bytes();
        if (script.choose(2) != 0 && fits && !atomic) request.flags |= fabric::kInline;
        if (length != 0) {
            const uint32_t first = script.choose(2) != 0 && !atomic ? length / 2 : length;
            request.segments[0] = {victim_.open->data(), first, victim_.open.get()};
            request.segments[1] = {victim_.open->data() + first, length - first,
                                   victim_.open.get()};
            request.segment_count = first == length ? 1 : 2;
        }
        request.rkey = kOwnKey;
        request.remote_address = kOwnAddress + script.take<uint16_t>() / 8 * 8;
        if (script.choose(8) == 0) {
            request.rkey = script.take<uint32_t>();
            request.remote_address = script.take<uint64_t>();
        }
        victim_.post_send(request);
    }

    void forge(Script& script) {
        const uint32_t opcode = script.choose(8) == 0 ? script.choose(16) : script.choose(5);
        const uint32_t flags = script.choose(8) << 4;
        const uint32_t length =
            script.choose(4) == 0 ? script.take<uint32_t>() : script.take<uint8_t>();
        uint32_t rkey = 0;
        uint64_t address = 0;
        choose_target(script, &rkey, &address);
        if (opcode == uint32_t(Opcode::kSend) && script.choose(2) != 0) {
            address = script.take<uint32_t>() % (2 * fabric::shm::kBounceBytes);
        }
        const uint64_t position = forged_ + script.choose(8) / 7;
        stranger_.forge(position, flags | opcode, length, rkey, address, script.take<uint32_t>());
        ++forged_;
    }

    void count(Script& script) {
        fabric::shm::QueueControl* control = stranger_.control();
        const uint64_t value =
            script.choose(2) != 0 ? script.take<uint8_t>() : script.take<uint64_t>();
        switch (script.choose(4)) {
            case 0:
                return control->consumed.store(value);
            case 1:
                return control->receives.store(value);
            case 2:
                return control->sleeping.store(static_cast<uint32_t>(value));
            default:
                return control->starved.store(static_cast<uint32_t>(value));
        }
    }

    // Any byte of the victim's queue, its own counters included.
    void scribble(Script& script) {
        const size_t at = script.take<uint32_t>() % (stranger_.outbound.bytes() - 8);
        script.copy(stranger_.outbound.data() + at, 1 + script.choose(8));
    }

    // A region comes and goes while the peer names it.
    void reallocate(Script& script) {
        spare_.reset();
        FUZZ_CHECK(victim_.device->allocate(4096, script.choose(8), &spare_) == 0);
    }

    Victim& victim_;
    Stranger stranger_;
    std::unique_ptr<fabric::MemoryRegion> spare_;
    uint64_t forged_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    static Victim victim;
    static std::unique_ptr<fabric::Listener> listener;
    if (listener == nullptr) {
        FUZZ_CHECK(victim.device->listen(fuzz::folder() + "/door", 8, &listener) == 0);
    }
    Script script(data, bytes);
    Scene scene(victim, *listener);
    while (script.more()) scene.step(script);
    scene.finish();
    return 0;
}
