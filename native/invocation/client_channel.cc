#include "invocation/client_channel.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "invocation/queue_depth.h"

namespace rfaas::invocation {

namespace {

constexpr uint32_t kMaxWorkers = 4096;

const char* refusal_text(uint16_t reason) {
    switch (static_cast<wire::RefusalReason>(reason)) {
        case wire::RefusalReason::kBadMagic:
            return "the worker does not take us for an rfaas client";
        case wire::RefusalReason::kBadVersion:
            return "the worker speaks another version of the invocation protocol";
        case wire::RefusalReason::kBadTicket:
            return "the worker does not accept the ticket";
        case wire::RefusalReason::kBusy:
            return "the worker has a client already";
    }
    return "the worker refused the connection";
}

}  // namespace

ClientChannel::~ClientChannel() {
    for (Worker& worker : workers_) worker.pair.reset();
}

int ClientChannel::open() {
    if (limits_.workers == 0 || limits_.workers > kMaxWorkers || limits_.slots == 0 ||
        limits_.slots > wire::kMaxSlots) {
        return -EINVAL;
    }
    while (session_ == 0) {
        if (::getrandom(&session_, sizeof session_, 0) != sizeof session_) return -EIO;
    }
    // Each worker: all receives, and every send may be waiting for its completion.
    const uint64_t depth =
        uint64_t{limits_.workers} * (receive_depth(limits_.slots) + send_depth(limits_.slots));
    if (depth > device_->info().max_completion_depth) return -ENOSPC;
    int rc = device_->create_completion_queue(static_cast<uint32_t>(depth), &queue_);
    if (rc < 0) return rc;
    rc = device_->allocate(sizeof(wire::Region) * wire::kMaxRegions * limits_.workers, 0, &tables_);
    if (rc < 0) return rc;
    rc = device_->allocate(size_t{limits_.workers} * limits_.slots * wire::kErrorTextBytes,
                           fabric::kRemoteWrite, &control_);
    if (rc < 0) return rc;
    regions_.assign(wire::kMaxRegions, nullptr);
    workers_.resize(limits_.workers);
    for (Worker& worker : workers_) worker.owed.assign(limits_.slots, 0);
    return 0;
}

int ClientChannel::connect(uint32_t index, std::string_view address,
                           const uint8_t (&ticket)[wire::kTicketBytes]) {
    if (index >= workers_.size()) return -EINVAL;
    disconnect(index);
    std::erase_if(ready_, [index](const CallOutcome& outcome) {  // the caller knows
        return outcome.worker == index && outcome.slot == kWorkerDown;
    });
    Worker& worker = workers_[index];
    if (std::memcmp(worker.ticket, ticket, sizeof ticket) != 0) abandon(index, kAnyStarted);
    std::memcpy(worker.ticket, ticket, sizeof ticket);
    ++worker.connections;
    wire::Hello hello;
    hello.session = session_;
    std::memcpy(hello.ticket, ticket, sizeof hello.ticket);
    fabric::QueuePairOptions options;
    options.send_queue = queue_.get();
    options.receive_queue = queue_.get();
    options.send_depth = send_depth(limits_.slots);
    options.receive_depth = receive_depth(limits_.slots);
    // A header and a small payload; larger inline areas cost send queue memory on NICs.
    options.inline_bytes = std::min<uint32_t>(device_->info().max_inline_bytes, 220);
    int rc = device_->connect(address, options, &hello, sizeof hello, &worker.pair);
    if (rc < 0) return rc;
    worker.receive.id = receive_id(index, worker);
    worker.receives_taken = 0;
    return worker.pair->post_receives(worker.receive, options.receive_depth);
}

ConnectProgress ClientChannel::connect_step(uint32_t index, std::string* reason) {
    Worker& worker = workers_[index];
    std::vector<uint8_t> data;
    switch (worker.pair->next_event(&data)) {
        case fabric::ConnectionEvent::kNone:
            return ConnectProgress::kPending;
        case fabric::ConnectionEvent::kEstablished:
            break;
        case fabric::ConnectionEvent::kRejected: {
            wire::Refusal refusal;
            if (data.size() >= sizeof refusal) std::memcpy(&refusal, data.data(), sizeof refusal);
            *reason = refusal_text(refusal.reason);
            return ConnectProgress::kRefused;
        }
        case fabric::ConnectionEvent::kUnreachable:
            *reason = std::string(data.begin(), data.end());
            return ConnectProgress::kUnreachable;
        case fabric::ConnectionEvent::kDisconnected:
            *reason = "the worker closed the connection";
            return ConnectProgress::kUnreachable;
    }
    wire::Welcome& welcome = worker.welcome;
    if (data.size() < sizeof welcome) {
        *reason = "the worker's welcome is too short";
        return ConnectProgress::kRefused;
    }
    std::memcpy(&welcome, data.data(), sizeof welcome);
    worker.slot_stride = wire::slot_stride(welcome.payload_bytes);
    if (welcome.magic != wire::kMagic || welcome.version != wire::kVersion ||
        welcome.slot_count < limits_.slots ||
        welcome.slots.length / worker.slot_stride < welcome.slot_count ||
        welcome.regions.length < sizeof(wire::Region) * wire::kMaxRegions) {
        *reason = "the worker's welcome makes no sense";
        return ConnectProgress::kRefused;
    }
    // This worker's error texts are its own part of the control region.
    const size_t texts = size_t{limits_.slots} * wire::kErrorTextBytes;
    const fabric::RemoteKey key = control_->remote_key();
    table(index)[wire::kControlRegion] = {key.address + index * texts, texts, key.rkey};
    worker.unsignaled = 0;
    worker.inline_bytes = worker.pair->inline_bytes();
    worker.request = {};
    worker.request.opcode = fabric::Opcode::kWriteImm;
    worker.request.rkey = welcome.slots.rkey;
    if (write_table(index, 0, wire::kMaxRegions) < 0 || !settle_doubts(index)) {
        *reason = "the first write to the worker failed";
        return ConnectProgress::kUnreachable;
    }
    worker.connected = true;
    return ConnectProgress::kConnected;
}

// Asks the worker about the requests of the last connection. One that does not know our session has
// served another client since.
bool ClientChannel::settle_doubts(uint32_t index) {
    Worker& worker = workers_[index];
    if (worker.welcome.resumed == 0) {
        abandon(index, kAnyStarted);
        return true;
    }
    for (uint32_t slot = 0; slot < limits_.slots; ++slot) {
        if (worker.owed[slot] == 0) continue;
        wire::RequestHeader header;
        header.request_id = worker.owed[slot];
        worker.request.segment_count = 1;
        worker.request.immediate = slot | wire::kInquiry;
        if (send_header(index, slot, header, 0, 0) < 0) return false;
    }
    return true;
}

void ClientChannel::disconnect(uint32_t index) {
    lose(index);
    workers_[index].pair.reset();
}

void ClientChannel::abandon(uint32_t index, uint64_t last_started) {
    Worker& worker = workers_[index];
    lose(index);
    for (uint32_t slot = 0; slot < limits_.slots; ++slot) {
        const uint64_t id = std::exchange(worker.owed[slot], 0);
        if (id == 0) continue;
        --in_flight_;
        const auto status =
            id <= last_started ? wire::CallStatus::kWorkerLost : wire::CallStatus::kNotReceived;
        ready_.push_back({index, slot, static_cast<uint32_t>(status), 0});
    }
}

int ClientChannel::add_region(fabric::MemoryRegion* region) {
    if (region->length() > UINT32_MAX) return -EMSGSIZE;
    const auto free =
        std::find(regions_.begin() + wire::kControlRegion + 1, regions_.end(), nullptr);
    if (free == regions_.end()) return -ENOSPC;
    *free = region;
    const auto index = static_cast<uint32_t>(free - regions_.begin());
    const fabric::RemoteKey key = region->remote_key();
    set_region(index, {key.address, key.length, key.rkey});
    return static_cast<int>(index);
}

void ClientChannel::remove_region(uint32_t index) {
    if (index == wire::kControlRegion || index >= regions_.size()) return;
    regions_[index] = nullptr;
    set_region(index, {});
}

// A worker that cannot be told is cut off: it would write results to wherever the entry pointed
// before.
void ClientChannel::set_region(uint32_t index, const wire::Region& region) {
    for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
        table(worker)[index] = region;
        if (workers_[worker].connected && write_table(worker, index, 1) < 0) lose(worker);
    }
}

int ClientChannel::write_table(uint32_t index, uint32_t first, uint32_t count) {
    Worker& worker = workers_[index];
    fabric::SendRequest request;
    request.opcode = fabric::Opcode::kWrite;
    request.segment_count = 1;
    request.segments[0] = {table(index) + first,
                           static_cast<uint32_t>(count * sizeof(wire::Region)), tables_.get()};
    request.remote_address = worker.welcome.regions.address + first * sizeof(wire::Region);
    request.rkey = worker.welcome.regions.rkey;
    return post(worker, request);
}

// Sends are unsignalled but for one now and then, which retires the others.
int ClientChannel::post(Worker& worker, fabric::SendRequest& request) {
    if (++worker.unsignaled >= sends_per_signal(limits_.slots)) {
        request.flags |= fabric::kSignaled;
        worker.unsignaled = 0;
    }
    return worker.pair->post_send(request);
}

void ClientChannel::submit(const CallRequest* requests, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        const CallRequest& call = requests[i];
        const int rc = submit(call, fabric::kMore);
        if (rc == 0) [[likely]]
            continue;
        const bool later = rc == -ENOTCONN || rc == -EAGAIN;
        const auto status = later ? wire::CallStatus::kNotReceived : wire::CallStatus::kBadRequest;
        ready_.push_back({call.worker, call.slot, static_cast<uint32_t>(status), 0});
    }
    for (const CallRequest* call = requests; call != requests + count; ++call) {
        if (call->worker < workers_.size() && workers_[call->worker].pair != nullptr) {
            workers_[call->worker].pair->ring();
        }
    }
}

int ClientChannel::submit(const CallRequest& call, uint8_t flags) {
    if (call.worker >= workers_.size() || call.slot >= limits_.slots) return -EINVAL;
    Worker& worker = workers_[call.worker];
    if (!worker.connected) return -ENOTCONN;
    if (worker.owed[call.slot] != 0) return -EBUSY;
    if (call.input_length > worker.welcome.payload_bytes) return -EMSGSIZE;
    if (call.function > UINT16_MAX || call.input_region >= wire::kMaxRegions ||
        call.output_region >= wire::kMaxRegions) {
        return -EINVAL;
    }
    wire::RequestHeader header;
    header.request_id = next_request_id_;
    header.output_offset = call.output_offset;
    header.output_capacity = call.output_capacity;
    header.payload_length = call.input_length;
    header.timeout_us = call.timeout_us;
    header.function = static_cast<uint16_t>(call.function);
    header.region = static_cast<uint16_t>(call.output_region);

    // The worker's own request, of which only this changes: a new one would have to be zeroed.
    fabric::SendRequest& request = worker.request;
    request.segment_count = 1;
    if (call.input_length != 0) {
        fabric::MemoryRegion* region = regions_[call.input_region];
        if (region == nullptr || call.input_offset > region->length() ||
            call.input_length > region->length() - call.input_offset) {
            return -EINVAL;
        }
        request.segments[1] = {region->data() + call.input_offset, call.input_length, region};
        request.segment_count = 2;
    }
    request.immediate = call.slot;
    const int rc = send_header(call.worker, call.slot, header, call.input_length, flags);
    if (rc < 0) return rc;
    worker.owed[call.slot] = next_request_id_++;
    ++in_flight_;
    return 0;
}

// Sends the worker's request with this header in front of its payload.
int ClientChannel::send_header(uint32_t index, uint32_t slot, const wire::RequestHeader& header,
                               uint32_t payload_length, uint8_t flags) {
    Worker& worker = workers_[index];
    fabric::SendRequest& request = worker.request;
    request.remote_address =
        worker.welcome.slots.address + slot * worker.slot_stride + wire::kHeaderOffset;
    if (sizeof header + payload_length <= worker.inline_bytes) [[likely]] {
        wire::RequestWords words = wire::words_of(header);
        request.flags = flags | fabric::kInline;
        request.segments[0] = {words.data(), sizeof words, nullptr};
        return post(worker, request);
    }
    // The header waits in the control region, in the text of its own slot: nothing is there while
    // the call runs, and the NIC has read it before the reply can come.
    uint8_t* place =
        control_->data() + (size_t{index} * limits_.slots + slot) * wire::kErrorTextBytes;
    std::memcpy(place, &header, sizeof header);
    request.flags = flags;
    request.segments[0] = {place, sizeof header, control_.get()};
    return post(worker, request);
}

// Turns a completion into an outcome; false if it has none to tell.
bool ClientChannel::take(const fabric::Completion& completion, CallOutcome* out) {
    if (completion.opcode != fabric::Opcode::kReceiveWrite) [[unlikely]] {
        if (completion.status != fabric::Status::kSuccess) {
            for (uint32_t i = 0; i < workers_.size(); ++i) {
                const auto& pair = workers_[i].pair;
                if (pair != nullptr && pair->number() == completion.queue_pair) lose(i);
            }
        }
        return false;
    }
    const auto index = static_cast<uint32_t>(completion.id);
    Worker& worker = workers_[index];
    if (completion.id != receive_id(index, worker)) [[unlikely]]
        return false;  // of a connection before this one: what it said is asked for again
    if (completion.status != fabric::Status::kSuccess) [[unlikely]] {
        lose(index);
        return false;
    }
    const uint32_t slot = wire::reply_slot(completion.immediate);
    if (slot >= worker.owed.size() || worker.owed[slot] == 0) [[unlikely]] {
        lose(index);  // a reply that nobody asked for
        return false;
    }
    // Fails when the connection has ended behind this reply, which is none the worse for it; the
    // receives that are flushed then tell of the end.
    if (++worker.receives_taken == kReceiveBatch) [[unlikely]] {
        worker.receives_taken = 0;
        (void)worker.pair->post_receives(worker.receive, kReceiveBatch);
    }
    worker.owed[slot] = 0;
    --in_flight_;
    out->worker = index;
    out->slot = slot;
    out->status = wire::reply_status(completion.immediate);
    out->length = completion.byte_length;
    if ((completion.immediate & wire::kLastReply) != 0) [[unlikely]]
        abandon(index, 0);
    return true;
}

void ClientChannel::lose(uint32_t index) {
    Worker& worker = workers_[index];
    if (!std::exchange(worker.connected, false)) return;
    ready_.push_back({index, kWorkerDown, static_cast<uint32_t>(wire::CallStatus::kWorkerLost), 0});
}

int ClientChannel::poll(CallOutcome* out, int max) {
    int count = 0;
    while (count < max) {
        if (!ready_.empty()) [[unlikely]] {
            out[count++] = ready_.front();
            ready_.pop_front();
            continue;
        }
        const int room = std::min(static_cast<int>(polled_.size()), max - count);
        const int polled = queue_->poll(polled_.data(), room);
        if (polled < 0) return polled;
        if (polled == 0 && ready_.empty()) break;
        for (int i = 0; i < polled; ++i) {
            if (take(polled_[i], &out[count])) ++count;
        }
    }
    return count;
}

// Takes one completion: 1 if it brought the outcome of this call. One at a time, because ours is
// almost always the next, and those behind it can wait for poll().
int ClientChannel::take_next(uint32_t worker, uint32_t slot, CallOutcome* out) {
    fabric::Completion completion;
    const int polled = queue_->poll(&completion, 1);
    if (polled != 1 || !take(completion, out)) return std::min(polled, 0);
    if (out->worker == worker && out->slot == slot) [[likely]]
        return 1;
    ready_.push_back(*out);
    return 0;
}

bool ClientChannel::look(uint32_t worker, uint32_t slot, uint32_t times, CallOutcome* out) {
    for (; times != 0; --times) {
        if (take_next(worker, slot, out) == 1) return true;
        cpu_relax();
    }
    return false;
}

int ClientChannel::finish(uint32_t worker, uint32_t slot, Spinner* spinner, CallOutcome* out) {
    for (;;) {
        const int taken = take_next(worker, slot, out);
        if (taken == 1) return 0;
        if (taken < 0) [[unlikely]]
            return taken;
        if (!workers_[worker].connected) [[unlikely]]
            break;
        if (!spinner->wait()) [[unlikely]] {
            *out = {worker, slot, static_cast<uint32_t>(wire::CallStatus::kDeadline), 0};
            return 0;
        }
    }
    // If the worker itself has ended, this call's outcome is among those of abandon().
    const auto ours = std::find_if(ready_.begin(), ready_.end(), [&](const CallOutcome& outcome) {
        return outcome.worker == worker && outcome.slot == slot;
    });
    if (ours == ready_.end()) return -ECONNRESET;
    *out = *ours;
    ready_.erase(ours);
    return 0;
}

std::string_view ClientChannel::error_text(uint32_t worker, uint32_t slot, uint32_t length) const {
    if (worker >= limits_.workers || slot >= limits_.slots) return {};
    const size_t offset = (size_t{worker} * limits_.slots + slot) * wire::kErrorTextBytes;
    return {reinterpret_cast<const char*>(control_->data()) + offset,
            std::min(length, wire::kErrorTextBytes)};
}

}  // namespace rfaas::invocation
