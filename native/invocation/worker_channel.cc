#include "invocation/worker_channel.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/copy.h"
#include "core/spin.h"
#include "invocation/queue_depth.h"

namespace rfaas::invocation {

namespace {

// Idle polls between two looks at the listener while the worker spins.
constexpr uint32_t kIdleLooks = 100'000;

// Longer timeouts are counted with the coarse clock: reading the precise one for each call would be
// a tenth of the call.
constexpr uint32_t kPreciseBelowUs = 100'000;

// Requests land in their slots: all receives are the same.
constexpr fabric::ReceiveRequest kReceive;

const char* refusal_text(wire::CallStatus reason) {
    return reason == wire::CallStatus::kLeaseRevoked
               ? "the lease is being revoked; the call did not run"
               : "the lease has ended; the call did not run";
}

bool same_ticket(const uint8_t* a, const uint8_t* b) {  // in constant time
    uint8_t difference = 0;
    for (size_t i = 0; i < wire::kTicketBytes; ++i) difference |= a[i] ^ b[i];
    return difference == 0;
}

}  // namespace

WorkerChannel::~WorkerChannel() {
    pair_.reset();
    if (epoll_ >= 0) ::close(epoll_);
    if (started_ != &unheeded_) ::munmap(started_, sizeof *started_);
}

int WorkerChannel::open(const WorkerOptions& options, std::string* reason) {
    options_ = options;
    if (options.slots == 0 || options.slots > wire::kMaxSlots || options.payload_bytes == 0 ||
        options.output_bytes == 0 || options.function_count > UINT16_MAX + 1u) {
        *reason = "slots, payload_bytes, output_bytes or the number of functions is out of range";
        return -EINVAL;
    }
    *reason = "cannot map the file for the last request";
    int rc = map_started();
    if (rc < 0) return rc;
    rc = fabric::open_device(options.provider, options.device, &device_, reason);
    if (rc < 0) return rc;
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    input_stride_ = wire::slot_stride(options.payload_bytes);
    // Behind each output lies a page that nobody may touch: a function that runs past its buffer
    // ends there, and not in the result of another call.
    output_stride_ = (options.output_bytes + page - 1) / page * page + page;
    const uint32_t slots = options.slots;
    *reason = "cannot register the worker's memory: " + std::to_string(slots) + " slots of " +
              std::to_string(input_stride_ + output_stride_) +
              " bytes (for verbs: see the limit of locked memory, ulimit -l)";
    rc = device_->allocate(slots * input_stride_, fabric::kRemoteWrite, &inputs_);
    if (rc == 0) rc = device_->allocate(slots * output_stride_, 0, &outputs_);
    if (rc == 0) rc = device_->allocate(size_t{slots} * wire::kErrorTextBytes, 0, &texts_);
    if (rc == 0) {
        rc = device_->allocate(sizeof(wire::Region) * wire::kMaxRegions, fabric::kRemoteWrite,
                               &table_);
    }
    if (rc < 0) return rc;
    for (uint32_t slot = 0; slot < slots; ++slot) {
        uint8_t* guard = outputs_->data() + (slot + 1) * output_stride_ - page;
        if (::mprotect(guard, page, PROT_NONE) != 0) return -errno;
    }
    slots_.resize(slots);
    callable_ = options.function_count;
    *reason = "cannot create the completion queue";
    rc = device_->create_completion_queue(2 * receive_depth(slots) + send_depth(slots), &queue_);
    if (rc < 0) return rc;
    *reason = "cannot listen on " + options.address;
    rc = device_->listen(options.address, 16, &listener_);
    if (rc < 0) return rc;
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) return -errno;
    for (const int fd : {queue_->fd(), listener_->fd()}) {
        epoll_event event = {};
        event.events = EPOLLIN;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
    }
    reason->clear();
    return 0;
}

int WorkerChannel::map_started() {
    if (options_.started_fd < 0) return 0;
    struct stat file = {};
    if (::fstat(options_.started_fd, &file) != 0) return -errno;
    if (file.st_size < static_cast<off_t>(sizeof *started_)) return -EINVAL;
    void* page = ::mmap(nullptr, sizeof *started_, PROT_READ | PROT_WRITE, MAP_SHARED,
                        options_.started_fd, 0);
    if (page == MAP_FAILED) return -errno;
    ::close(options_.started_fd);
    started_ = static_cast<std::atomic<uint64_t>*>(page);
    return 0;
}

void WorkerChannel::serve_connections() {
    std::unique_ptr<fabric::ConnectionRequest> request;
    while (listener_->next(&request) == 0) admit(std::move(request));
    if (listener_->dropped() != dropped_) [[unlikely]] {
        dropped_ = listener_->dropped();
        events_->refused("unknown", "it does not speak the fabric's protocol");
    }
    hear_client();
}

// All that there is to know of our client's connection.
void WorkerChannel::hear_client() {
    std::vector<uint8_t> data;
    while (pair_ != nullptr) {
        switch (pair_->next_event(&data)) {
            case fabric::ConnectionEvent::kNone:
                return;
            case fabric::ConnectionEvent::kEstablished:
                established_ = true;
                break;
            default:
                drop_client();
        }
    }
}

void WorkerChannel::admit(std::unique_ptr<fabric::ConnectionRequest> request) {
    wire::Hello hello;
    wire::Refusal refusal;
    std::string_view why;
    const auto refuse = [&](wire::RefusalReason reason, std::string_view text) {
        if (!why.empty()) return;
        refusal.reason = static_cast<uint16_t>(reason);
        why = text;
    };
    const std::vector<uint8_t>& data = request->private_data();
    if (data.size() >= sizeof hello) std::memcpy(&hello, data.data(), sizeof hello);
    if (data.size() < sizeof hello || hello.magic != wire::kMagic) {
        refuse(wire::RefusalReason::kBadMagic, "it does not speak rfaas");
    }
    if (hello.version != wire::kVersion) {
        refuse(wire::RefusalReason::kBadVersion, "another version of the invocation protocol");
    }
    if (!same_ticket(hello.ticket, options_.ticket)) {
        refuse(wire::RefusalReason::kBadTicket, "wrong ticket");
    }
    const bool resumed = hello.session == session_ && session_ != 0;
    if (why.empty()) {
        if (!resumed) hear_client();
        if (!resumed && pair_ != nullptr && pair_->state() == fabric::QueuePairState::kConnected) {
            refuse(wire::RefusalReason::kBusy, "there is a client already");
        } else {
            drop_client();  // our own client is back: its old connection is dead
        }
    }
    const auto runs = [](const Slot& slot) { return slot.state != SlotState::kAnswered; };
    if (!resumed && std::any_of(slots_.begin(), slots_.end(), runs)) {
        refuse(wire::RefusalReason::kBusy, "calls of the last client still run");
    }
    if (!why.empty()) {
        events_->refused(request->peer(), why);
        request->reject(&refusal, sizeof refusal);
        return;
    }
    fabric::QueuePairOptions options;
    options.send_queue = queue_.get();
    options.receive_queue = queue_.get();
    options.send_depth = send_depth(options_.slots);
    options.receive_depth = receive_depth(options_.slots);
    options.inline_bytes = std::min<uint32_t>(device_->info().max_inline_bytes, 220);
    int rc = request->prepare(options, &pair_);
    if (rc < 0) {
        events_->refused(request->peer(), "no resources for a queue pair");
        return;
    }
    receives_taken_ = 0;
    rc = pair_->post_receives(kReceive, options.receive_depth);
    std::memset(table_->data(), 0, table_->length());
    if (!resumed) {
        std::fill(slots_.begin(), slots_.end(), Slot{});
        started_->store(0, std::memory_order_release);
    }
    session_ = hello.session;
    unsignaled_ = 0;
    inline_bytes_ = pair_->inline_bytes();
    answer_.opcode = fabric::Opcode::kWriteImm;
    wire::Welcome welcome;
    welcome.resumed = resumed ? 1 : 0;
    welcome.slot_count = static_cast<uint16_t>(options_.slots);
    welcome.payload_bytes = options_.payload_bytes;
    welcome.output_bytes = options_.output_bytes;
    welcome.function_count = options_.function_count;
    const fabric::RemoteKey slots = inputs_->remote_key();
    const fabric::RemoteKey table = table_->remote_key();
    welcome.slots = {slots.address, slots.length, slots.rkey};
    welcome.regions = {table.address, table.length, table.rkey};
    if (rc == 0) rc = request->accept(pair_.get(), &welcome, sizeof welcome);
    if (rc < 0) {
        events_->refused(request->peer(), "it went away");
        pair_.reset();
        return;
    }
    epoll_event event = {};
    event.events = EPOLLIN;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, pair_->fd(), &event);
    events_->connected(request->peer());
}

void WorkerChannel::drop_client() {
    if (pair_ == nullptr) return;
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, pair_->fd(), nullptr);
    pair_.reset();
    established_ = false;
    arrived_.clear();
    for (Slot& slot : slots_) {
        if (slot.state == SlotState::kRunning) slot.state = SlotState::kDetached;
    }
    events_->disconnected();
}

int WorkerChannel::next(Call* call, uint64_t budget_ns) {
    Spinner spinner(budget_ns);
    for (;;) {
        fabric::Completion completion;
        int count = 1;
        if (!arrived_.empty()) [[unlikely]] {
            completion = arrived_.front();
            arrived_.pop_front();
        } else {
            count = queue_->poll(&completion, 1);
            if (count < 0) return count;
        }
        if (count == 1) {
            if (completion.opcode == fabric::Opcode::kReceiveWrite) [[likely]] {
                if (accept_request(completion, call)) return 1;
            } else if (completion.status != fabric::Status::kSuccess && pair_ != nullptr &&
                       completion.queue_pair == pair_->number()) {
                drop_client();
            }
            continue;
        }
        ring();
        if (pair_ == nullptr || !established_ || ++idle_looks_ >= kIdleLooks || budget_ns == 0) {
            idle_looks_ = 0;
            serve_connections();
            const uint64_t now_ns = coarse_monotonic_ns();
            if (stats_.due(now_ns)) tell(now_ns);
        }
        // Whoever spins does it for the next call of a client.
        if (pair_ == nullptr || budget_ns == 0 || !spinner.wait()) return 0;
    }
}

// A request has arrived. False: it was answered, or its client dropped, already.
bool WorkerChannel::accept_request(const fabric::Completion& completion, Call* call) {
    if (pair_ == nullptr || completion.queue_pair != pair_->number()) return false;  // of the last
    if (completion.status != fabric::Status::kSuccess) [[unlikely]] {
        drop_client();
        return false;
    }
    const uint32_t index = completion.immediate;
    wire::RequestHeader header;
    if (!receive_again() || completion.byte_length < sizeof header || index >= slots_.size() ||
        slots_[index].state != SlotState::kAnswered) [[unlikely]] {
        const uint32_t inquired = index ^ wire::kInquiry;
        if (completion.byte_length == sizeof header && inquired < slots_.size()) {
            take_inquiry(inquired);
        } else {
            drop_client();  // it breaks the protocol
        }
        return false;
    }
    const uint8_t* begin = inputs_->data() + index * input_stride_;
    copy_words(&header, begin + wire::kHeaderOffset, sizeof header);

    Slot& slot = slots_[index];
    if (header.request_id <= slot.request_id) [[unlikely]] {
        drop_client();  // a replay of what has been answered
        return false;
    }
    slot.request_id = header.request_id;
    slot.state = SlotState::kRunning;
    slot.output_capacity = 0;
    if (header.payload_length != completion.byte_length - sizeof header ||
        header.payload_length > options_.payload_bytes || header.region >= wire::kMaxRegions) {
        fail(index, wire::CallStatus::kBadRequest, "the header does not fit what arrived");
        return false;
    }
    wire::Region region;
    std::memcpy(&region, table_->data() + header.region * sizeof region, sizeof region);
    if (header.output_offset > region.length ||
        header.output_capacity > region.length - header.output_offset) {
        fail(index, wire::CallStatus::kBadRequest, "the output lies outside of its region");
        return false;
    }
    slot.output_address = region.address + header.output_offset;
    slot.output_rkey = region.rkey;
    slot.output_capacity = header.output_capacity;
    if (header.function >= callable_) [[unlikely]] {
        if (refusal_ != wire::CallStatus::kOk) {
            take_back(index);
            return false;
        }
        fail(index, wire::CallStatus::kUnknownFunction,
             "the package has " + std::to_string(options_.function_count) +
                 " functions, none of index " + std::to_string(header.function));
        return false;
    }
    started_->store(header.request_id, std::memory_order_release);
    call->slot = index;
    call->function = header.function;
    call->input = begin + wire::kPayloadOffset;
    call->input_length = header.payload_length;
    call->output = outputs_->data() + index * output_stride_;
    call->output_capacity = std::min(header.output_capacity, options_.output_bytes);
    call->request_id = header.request_id;
    const bool precise = header.timeout_us != 0 && header.timeout_us < kPreciseBelowUs;
    call->arrived_ns = precise ? monotonic_ns() : coarse_monotonic_ns();
    call->deadline_ns =
        header.timeout_us == 0 ? 0 : call->arrived_ns + uint64_t{header.timeout_us} * 1000;
    if (stats_.due(call->arrived_ns)) [[unlikely]]
        tell(call->arrived_ns);
    stats_.arrived(index, call->arrived_ns);
    return true;
}

// A receive has been taken. False: the connection is lost.
bool WorkerChannel::receive_again() {
    if (++receives_taken_ < kReceiveBatch) [[likely]]
        return true;
    receives_taken_ = 0;
    return pair_->post_receives(kReceive, kReceiveBatch) == 0;
}

// Our client has come back and asks for the answer to a request.
void WorkerChannel::take_inquiry(uint32_t index) {
    wire::RequestHeader header;
    std::memcpy(&header, inputs_->data() + index * input_stride_ + wire::kHeaderOffset,
                sizeof header);
    Slot& slot = slots_[index];
    const bool last = header.request_id == slot.request_id;
    if (last && slot.state == SlotState::kAnswered) {
        send_answer(index);
    } else if (last && slot.state == SlotState::kDetached) {
        slot.state = SlotState::kRunning;
    } else if (header.request_id > slot.request_id && slot.state == SlotState::kAnswered) {
        slot.request_id = header.request_id;
        slot.state = SlotState::kRunning;
        fail(index, wire::CallStatus::kNotReceived, {});
    } else {
        drop_client();  // it breaks the protocol
    }
}

void WorkerChannel::reply(uint32_t index, uint32_t length) {
    const Slot& slot = slots_[index];
    if (length > slot.output_capacity || length > options_.output_bytes) [[unlikely]] {
        fail(index, wire::CallStatus::kOutputTooSmall,
             "the result has " + std::to_string(length) + " bytes, the output takes " +
                 std::to_string(std::min(slot.output_capacity, options_.output_bytes)));
        return;
    }
    answer(index, wire::reply_immediate(index, wire::CallStatus::kOk), length);
}

void WorkerChannel::fail(uint32_t index, wire::CallStatus status, std::string_view text) {
    fail_with(index, wire::reply_immediate(index, status), text);
}

void WorkerChannel::fail_last(uint32_t index, wire::CallStatus status, std::string_view text) {
    for (uint32_t other = 0; other < slots_.size(); ++other) {
        if (other != index) fail(other, wire::CallStatus::kWorkerLost, {});
    }
    fail_with(index, wire::reply_immediate(index, status) | wire::kLastReply, text);
    settle();
}

void WorkerChannel::fail_with(uint32_t index, uint32_t immediate, std::string_view text) {
    if (slots_[index].state == SlotState::kAnswered) return;
    auto length = static_cast<uint32_t>(std::min<size_t>(text.size(), wire::kErrorTextBytes));
    // Not in the middle of a UTF-8 character.
    while (length < text.size() && length > 0 && (text[length] & 0xc0) == 0x80) --length;
    if (length != 0) {
        std::memcpy(texts_->data() + index * wire::kErrorTextBytes, text.data(), length);
    }
    answer(index, immediate, length);
}

// What the slot is to answer: sent now, or when a client that has lost its connection inquires.
void WorkerChannel::answer(uint32_t index, uint32_t immediate, uint32_t length) {
    Slot& slot = slots_[index];
    if (slot.state == SlotState::kAnswered) [[unlikely]]
        return;
    const bool attached = slot.state == SlotState::kRunning;
    slot.immediate = immediate;
    slot.length = length;
    // Before the client can know: its next request may arrive while we are still here.
    slot.state = SlotState::kAnswered;
    if (attached) [[likely]]
        send_answer(index);
    stats_.answered(index);
}

void WorkerChannel::send_answer(uint32_t index) {
    const Slot& slot = slots_[index];
    fabric::SendRequest& request = answer_;
    request.immediate = slot.immediate;
    request.flags = 0;
    request.segment_count = 0;
    if (wire::reply_status(slot.immediate) != static_cast<uint32_t>(wire::CallStatus::kOk))
        [[unlikely]] {
        aim_text(index, slot.length, &request);
    } else if (slot.length != 0) {
        request.segments[0] = {outputs_->data() + index * output_stride_, slot.length,
                               outputs_.get()};
        request.segment_count = 1;
        request.remote_address = slot.output_address;
        request.rkey = slot.output_rkey;
    }
    post(request);
}

// The text goes to the client's control region, if the client has named one that takes it.
void WorkerChannel::aim_text(uint32_t index, uint32_t length, fabric::SendRequest* request) {
    wire::Region control;
    std::memcpy(&control, table_->data() + wire::kControlRegion * sizeof control, sizeof control);
    const uint64_t offset = uint64_t{index} * wire::kErrorTextBytes;
    if (length == 0 || control.length < wire::kErrorTextBytes ||
        offset > control.length - wire::kErrorTextBytes) {
        return;
    }
    request->segments[0] = {texts_->data() + index * wire::kErrorTextBytes, length, texts_.get()};
    request->segment_count = 1;
    request->remote_address = control.address + offset;
    request->rkey = control.rkey;
}

// One send in sends_per_signal() is signalled and retires the others. A send queue that is full is
// drained; requests that arrive meanwhile wait in arrived_.
void WorkerChannel::post(fabric::SendRequest& request) {
    if (++unsignaled_ >= sends_per_signal(options_.slots)) {
        request.flags |= fabric::kSignaled;
        unsignaled_ = 0;
    }
    if (request.segment_count != 0 && request.segments[0].length <= inline_bytes_) {
        request.flags |= fabric::kInline;
    }
    // Whether the client has just lain down is looked at when there is nothing else to do; until
    // then it looks itself (lib/client/waiting.ts).
    request.flags |= fabric::kQuiet;
    unrung_ = true;
    int rc = pair_->post_send(request);
    // A client that takes no answers for so long is as good as gone.
    constexpr uint64_t kPatienceNs = 5'000'000'000;
    Spinner spinner(kPatienceNs);
    while (rc == -EAGAIN && drain() && spinner.wait()) rc = pair_->post_send(request);
    if (rc < 0) drop_client();
}

void WorkerChannel::ring() {
    if (std::exchange(unrung_, false) && pair_ != nullptr) pair_->ring();
}

bool WorkerChannel::drain() {
    fabric::Completion completion;
    const int count = queue_->poll(&completion, 1);
    if (count < 0) return false;
    if (count == 1) {
        if (completion.opcode == fabric::Opcode::kReceiveWrite) {
            arrived_.push_back(completion);
        } else if (completion.status != fabric::Status::kSuccess) {
            return false;
        }
    }
    return true;
}

void WorkerChannel::refuse(wire::CallStatus reason) {
    refusal_ = reason;
    callable_ = 0;
}

void WorkerChannel::take_back(uint32_t slot) {
    fail(slot, refusal_, refusal_text(refusal_));
}

// Requests of a queue pair complete in order: an empty write behind the answers tells of them all.
void WorkerChannel::settle() {
    constexpr uint64_t kMarker = UINT64_MAX;
    // The thread that runs a function without end may hold the same core.
    constexpr uint64_t kPatienceNs = 2'000'000'000;
    if (pair_ == nullptr) return;
    fabric::SendRequest request;
    request.id = kMarker;
    request.opcode = fabric::Opcode::kWrite;
    request.flags = fabric::kSignaled;
    if (pair_->post_send(request) < 0) return;
    Spinner spinner(kPatienceNs);
    fabric::Completion completion;
    do {
        if (queue_->poll(&completion, 1) == 1 &&
            (completion.id == kMarker || completion.status != fabric::Status::kSuccess)) {
            return;
        }
    } while (spinner.wait());
}

int WorkerChannel::arm() {
    // What came since the last word is told with the next one.
    const uint64_t now_ns = coarse_monotonic_ns();
    if (stats_.due(now_ns)) tell(now_ns);
    ring();
    return queue_->arm();
}

void WorkerChannel::tell(uint64_t now_ns) {
    events_->served(stats_.tell(now_ns));
}

void WorkerChannel::acknowledge() {
    queue_->acknowledge();
    serve_connections();
}

}  // namespace rfaas::invocation
