// The sockets of the shm provider: packets and file descriptors of strangers before, during and
// after the handshake, at both of its ends.
#include "test/shm_stranger.h"

#include "fuzz/shm_victim.h"

using namespace rfaas;
using fabric::shm::Message;
using fabric::shm::MessageType;
using fabric::shm::Stranger;
using fuzz::Script;
using fuzz::Victim;

namespace {

// What a stranger could hand over instead of a queue, a table of keys or a region.
int choose_descriptor(Script& script, const Stranger& stranger) {
    using fabric::shm::kSealed;
    using fabric::shm::plain_memfd;
    static const size_t queue = stranger.shape.bytes();
    static const UniqueFd page = plain_memfd(4096, kSealed);
    static const UniqueFd open = plain_memfd(queue, 0);
    static const UniqueFd short_queue = plain_memfd(queue - 1, kSealed);
    static const UniqueFd unwritable = plain_memfd(queue, kSealed | F_SEAL_WRITE);
    static const UniqueFd large = plain_memfd(size_t{1} << 40, kSealed);
    static const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    static const UniqueFd program(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    const int all[] = {stranger.inbound_fd.get(),
                       stranger.keys_fd.get(),
                       page.get(),
                       open.get(),
                       short_queue.get(),
                       unwritable.get(),
                       large.get(),
                       null.get(),
                       program.get(),
                       stranger.socket.get()};
    return all[script.choose(std::size(all))];
}

void send_packet(Script& script, const Stranger& stranger, MessageType usual) {
    Message message = stranger.greeting(usual);
    std::vector<int> fds = {stranger.inbound_fd.get(), stranger.keys_fd.get()};
    const uint32_t kind = script.choose(8);
    if (kind != 0) {
        message.type = MessageType(script.choose(8));
        message.rkey = script.take<uint32_t>();
        message.access = script.choose(8);
        message.address = script.take<uint16_t>();
        message.length = script.take<uint16_t>();
        script.patch(&message);
        fds.resize(script.choose(4));
        for (int& fd : fds) fd = choose_descriptor(script, stranger);
    }
    char packet[256] = {};
    std::memcpy(packet, &message, sizeof message);
    const size_t bytes = kind == 7 ? script.take<uint8_t>() : sizeof message;
    (void)fabric::shm::send_raw(stranger.socket.get(), packet, bytes, fds);
}

// A stranger comes to the victim's door. False: it was not let in.
bool be_visited(Script& script, Victim& victim, Stranger& stranger) {
    static std::unique_ptr<fabric::Listener> listener;
    if (listener == nullptr) {
        FUZZ_CHECK(victim.device->listen(fuzz::folder() + "/door", 8, &listener) == 0);
    }
    stranger.socket = fabric::shm::connect_raw(listener->address());
    send_packet(script, stranger, MessageType::kHello);
    std::unique_ptr<fabric::ConnectionRequest> request;
    if (listener->next(&request) < 0) {
        stranger.socket.reset();
        FUZZ_CHECK(listener->next(&request) < 0);
        return false;
    }
    FUZZ_CHECK(request->private_data().size() <= fabric::shm::kMaxRequestPrivate);
    FUZZ_CHECK(request->prepare(victim.options(), &victim.pair) == 0);
    victim.post_receive(64);
    return request->accept(victim.pair.get(), "welcome", 7) == 0;
}

// The victim comes to a stranger's door.
void visit(Script& script, Victim& victim, Stranger& stranger) {
    static const std::string path = fuzz::folder() + "/stranger";
    static const UniqueFd door = fabric::shm::listen_raw(path);
    FUZZ_CHECK(victim.device->connect(path, victim.options(), "hello", 5, &victim.pair) == 0);
    stranger.socket.reset(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
    victim.post_receive(64);
    send_packet(script, stranger, MessageType::kWelcome);
    victim.next_event();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    static Victim victim;
    Script script(data, bytes);
    Stranger stranger;
    if (script.choose(2) != 0) {
        visit(script, victim, stranger);
    } else if (!be_visited(script, victim, stranger)) {
        if (victim.pair != nullptr) victim.finish();
        return 0;
    }
    while (script.more()) {
        switch (script.choose(4)) {
            case 0:
                victim.next_event();
                break;
            case 1: {
                fabric::SendRequest request;
                request.opcode = fabric::Opcode::kRead;
                request.flags = fabric::kSignaled;
                request.segment_count = 1;
                request.segments[0] = {victim.open->data(), script.take<uint8_t>(),
                                       victim.open.get()};
                request.rkey = script.take<uint32_t>();
                request.remote_address = script.take<uint16_t>();
                stranger.set_key(static_cast<uint32_t>(request.rkey),
                                 static_cast<uint32_t>(request.rkey));
                victim.post_send(request);
                victim.poll();
                break;
            }
            default:
                send_packet(script, stranger, MessageType::kWake);
                victim.next_event();
        }
    }
    victim.finish();
    return 0;
}
