// The worker's end of the invocation protocol: a client with the right ticket writes what it likes
// into the slots and the table of regions, and names what it likes in its requests.
#include "invocation/worker_channel.h"

#include "fuzz/script.h"
#include "test/shm_stranger.h"

using namespace rfaas;
using fabric::shm::Message;
using fabric::shm::MessageType;
using fabric::shm::Stranger;
using fuzz::Script;

namespace {

constexpr uint32_t kSlots = 4;
constexpr uint32_t kPayload = 1024;
constexpr uint32_t kOutput = 4096;
constexpr uint32_t kFunctions = 3;
constexpr uint32_t kOwnKey = 0x7005;  // of the memory that the client offers for results
constexpr size_t kOwnBytes = 64 * 1024;
constexpr uint64_t kOwnAddress = 0x10000;

class Events final : public invocation::WorkerEvents {
  public:
    void connected(const std::string&) override { ++clients; }
    void disconnected() override { --clients; }
    void refused(const std::string&, std::string_view why) override { FUZZ_CHECK(!why.empty()); }
    void served(const std::string& line) override { FUZZ_CHECK(!line.empty()); }
    int clients = 0;
};

struct Worker {
    Events events;
    invocation::WorkerChannel channel{&events};
    bool revoked;  // it answers, and runs nothing

    explicit Worker(bool is_revoked) : revoked(is_revoked) {
        invocation::WorkerOptions options;
        options.provider = "shm";
        options.address = fuzz::folder() + (revoked ? "/revoked" : "/worker");
        options.slots = kSlots;
        options.payload_bytes = kPayload;
        options.output_bytes = kOutput;
        options.function_count = kFunctions;
        std::string reason;
        FUZZ_CHECK(channel.open(options, &reason) == 0);
        if (revoked) channel.refuse(wire::CallStatus::kLeaseRevoked);
    }
};

class Client {
  public:
    Client(Worker& worker, Script& script, uint64_t session, uint64_t* requests)
        : worker_(worker), requests_(requests) {
        stranger_.socket = fabric::shm::connect_raw(worker.channel.address());
        Message message = stranger_.hello();
        wire::Hello hello;  // the ticket is all zeros, as the worker's
        hello.session = session;
        if (script.choose(8) == 0) script.patch(&hello);
        message.private_bytes = sizeof hello;
        if (script.choose(16) == 0) message.private_bytes = script.choose(64);
        std::memcpy(message.private_data, &hello, sizeof hello);
        FUZZ_CHECK(stranger_.send(message, {stranger_.inbound_fd.get(), stranger_.keys_fd.get()}));
        serve(script);
        if (!stranger_.take_greeting(MessageType::kWelcome, &message)) return;
        FUZZ_CHECK(worker.events.clients == 1);
        std::memcpy(&welcome_, message.private_data, sizeof welcome_);
        stranger_.take_regions();
        import(welcome_.slots, &slots_);
        import(welcome_.regions, &table_);
        static const UniqueFd memory = fabric::shm::plain_memfd(kOwnBytes, fabric::shm::kSealed);
        FUZZ_CHECK(stranger_.announce(kOwnKey, fabric::kRemoteWrite, kOwnAddress, kOwnBytes,
                                      memory.get()));
        behave();
        in_ = true;
    }

    ~Client() {
        stranger_.socket.reset();
        // The worker notices when it looks, and is ready for the next.
        invocation::Call call;
        for (int i = 0; i < 4 && worker_.events.clients != 0; ++i) {
            worker_.channel.acknowledge();
            while (worker_.channel.next(&call, 0) == 1) worker_.channel.reply(call.slot, 0);
        }
        FUZZ_CHECK(worker_.events.clients == 0);
        // Their answers wait for an inquiry, or make room for another client.
        for (const invocation::Call& held : held_) worker_.channel.reply(held.slot, 0);
    }

    [[nodiscard]] bool in() const { return in_ && worker_.events.clients == 1; }

    void step(Script& script) {
        switch (script.choose(8)) {
            case 0: {  // an entry of the table of regions
                wire::Region region = {kOwnAddress, kOwnBytes, kOwnKey};
                script.patch(&region);
                const size_t at = script.choose(4) * sizeof region;
                std::memcpy(table_.data() + at, &region, sizeof region);
                return;
            }
            case 1:
            case 2:
            case 3:
                return request(script);
            case 4:  // any byte that a client may write, between the steps of a call
                script.copy(slots_.data() + script.take<uint16_t>() % (slots_.bytes() - 8), 8);
                return;
            case 5:
                if (held_.empty()) return;
                answer(script, held_.back());
                held_.pop_back();
                return;
            case 6:  // out of order
                if (held_.empty()) return;
                worker_.channel.fail(held_.front().slot, wire::CallStatus::kLeaseEnded, "ended");
                held_.erase(held_.begin());
                return behave();
            default:
                return serve(script);
        }
    }

  private:
    void import(const wire::Region& region, fabric::shm::Pages* pages) {
        for (const Stranger::Region& offered : stranger_.regions) {
            if (offered.message.rkey != region.rkey) continue;
            FUZZ_CHECK(pages->import(offered.fd.get(), region.length, true, pages) == 0);
        }
        FUZZ_CHECK(pages->data() != nullptr);
    }

    // Takes what the worker has sent and makes room for more: one that does not is waited for, for
    // seconds, before it is cut off (a test of the channel shows that).
    void behave() {
        fabric::shm::QueueControl* control = stranger_.control();
        uint64_t taken = control->consumed.load();
        while (true) {
            const auto* ring = reinterpret_cast<const fabric::shm::Descriptor*>(
                stranger_.inbound.data() + stranger_.shape.ring_offset());
            const uint32_t tag = ring[taken % stranger_.shape.ring_depth].tag.load();
            if ((tag & ~0xffu) != fabric::shm::lap_tag(taken, stranger_.shape.ring_depth)) break;
            ++taken;
        }
        control->consumed.store(taken);
        control->receives.store(taken + stranger_.shape.receive_depth);
    }

    void request(Script& script) {
        wire::RequestHeader header;
        header.request_id = ++*requests_;
        header.output_capacity = 256;
        header.payload_length = script.take<uint8_t>();
        header.function = static_cast<uint16_t>(script.choose(kFunctions + 1));
        header.region = 1;
        uint32_t slot = script.choose(kSlots + 1);
        uint32_t length = sizeof header + header.payload_length;
        if (script.choose(4) == 0) {  // asks what became of a request, this one or an earlier one
            header.request_id -= script.choose(4);
            slot |= wire::kInquiry;
            length = sizeof header;
        }
        if (script.choose(4) == 0) script.patch(&header);
        if (script.choose(16) == 0) length = script.take<uint16_t>();
        const uint64_t at = welcome_.slots.address +
                            (slot & 0xff) % kSlots * wire::slot_stride(kPayload) +
                            wire::kHeaderOffset;
        std::memcpy(slots_.data() + (at - welcome_.slots.address), &header, sizeof header);
        // Written in place already, as a large message is.
        stranger_.forge(forged_++, uint32_t(fabric::Opcode::kWriteImm), length,
                        static_cast<uint32_t>(welcome_.slots.rkey), at, slot);
        serve(script);
    }

    void serve(Script& script) {
        invocation::Call call;
        if (worker_.channel.next(&call, 0) == 1) {
            FUZZ_CHECK(!worker_.revoked);
            check(call);
            // Some calls are answered later, as by a function that is still at work.
            if (script.choose(4) == 0) {
                held_.push_back(call);
            } else {
                answer(script, call);
            }
        }
        if (in_) behave();
    }

    // What a function is handed lies in the worker's own buffers, whatever the request said.
    void check(const invocation::Call& call) const {
        invocation::WorkerChannel& channel = worker_.channel;
        FUZZ_CHECK(call.slot < kSlots && call.function < kFunctions);
        FUZZ_CHECK(call.input_length <= kPayload && call.output_capacity <= kOutput);
        FUZZ_CHECK(channel.input_region()->contains(call.input, call.input_length));
        FUZZ_CHECK(call.output ==
                   channel.output_region()->data() + call.slot * channel.output_stride());
        for (const invocation::Call& other : held_) FUZZ_CHECK(other.slot != call.slot);
        uint32_t sum = 0;
        for (uint32_t i = 0; i < call.input_length; ++i) sum += call.input[i];
        std::memset(call.output, static_cast<int>(sum), call.output_capacity);
    }

    void answer(Script& script, const invocation::Call& call) {
        static const std::string text(300, 'x');
        if (script.choose(4) == 0) {
            worker_.channel.fail(call.slot, wire::CallStatus::kFunctionError,
                                 std::string_view(text).substr(0, script.take<uint8_t>() * 2));
        } else {
            worker_.channel.reply(call.slot, script.take<uint16_t>() % (kOutput + 2));
        }
        behave();
    }

    Worker& worker_;
    Stranger stranger_;
    wire::Welcome welcome_;
    fabric::shm::Pages slots_, table_;
    std::vector<invocation::Call> held_;
    bool in_ = false;
    uint64_t* requests_;
    uint64_t forged_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    static Worker worker(false), revoked(true);
    static uint64_t session = 0;
    ++session;
    Script script(data, bytes);
    Worker& chosen = script.choose(8) == 7 ? revoked : worker;
    uint64_t requests = 0;
    for (int connection = 0; connection < 3 && script.more(); ++connection) {
        Client client(chosen, script, session, &requests);
        while (script.more() && client.in()) client.step(script);
    }
    return 0;
}
