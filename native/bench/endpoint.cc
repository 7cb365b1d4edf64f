#include "bench/endpoint.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/time.h"

namespace rfaas::bench {

namespace {

constexpr uint64_t kConnectNs = 10'000'000'000;
constexpr uint32_t kLeastDepth = 64;
constexpr size_t kLine = 64;
// Receives that are taken are posted again so many at a time, as the channels do it.
constexpr uint32_t kReceiveBatch = 16;
static_assert(kReceiveBatch <= kLeastDepth / 2);

}  // namespace

Endpoint::Endpoint(const Options& options)
    : options_(options),
      slots_(options.depth),
      queue_depth_(std::max(kLeastDepth, 2 * options.depth)),
      stride_((std::max<size_t>(options.bytes, 1) + kLine - 1) / kLine * kLine) {
    std::string reason;
    const int rc = fabric::open_device(options.provider, options.device, &device_, &reason);
    if (rc < 0) die("provider " + options.provider + ": " + reason, rc);
    check(device_->create_completion_queue(4 * queue_depth_, &queue_), "create_completion_queue");
    check(device_->allocate(std::max<size_t>(2 * slots_ * stride_, 4096), fabric::kRemoteWrite,
                            &region_),
          "allocate");
    if (options.bytes <= device_->info().max_inline_bytes) inline_bytes_ = options.bytes;
}

void Endpoint::connect(const std::string& address) {
    const fabric::RemoteKey key = region_->remote_key();
    check(device_->connect(address, queue_pair_options(), &key, sizeof key, &pair_), "connect");
    post_receives();
    take_peer(await_event(fabric::ConnectionEvent::kEstablished));
}

std::unique_ptr<fabric::ConnectionRequest> Endpoint::await_request(fabric::Listener& listener) {
    std::unique_ptr<fabric::ConnectionRequest> request;
    while (listener.next(&request) == -EAGAIN) ::usleep(100);
    return request;
}

void Endpoint::prepare(fabric::ConnectionRequest& request) {
    check(request.prepare(queue_pair_options(), &pair_), "prepare");
    post_receives();
    take_peer(request.private_data());
    const fabric::RemoteKey key = region_->remote_key();
    check(request.accept(pair_.get(), &key, sizeof key), "accept");
    await_event(fabric::ConnectionEvent::kEstablished);
}

fabric::QueuePairOptions Endpoint::queue_pair_options() const {
    fabric::QueuePairOptions result;
    result.send_queue = queue_.get();
    result.receive_queue = queue_.get();
    result.send_depth = queue_depth_;
    result.receive_depth = queue_depth_;
    result.inline_bytes = inline_bytes_;
    return result;
}

void Endpoint::post_receives() {
    check(pair_->post_receives({}, queue_depth_), "post_receives");
}

void Endpoint::take_peer(const std::vector<uint8_t>& data) {
    if (data.size() < sizeof peer_) die("short private data");
    std::memcpy(&peer_, data.data(), sizeof peer_);
}

std::vector<uint8_t> Endpoint::await_event(fabric::ConnectionEvent wanted) {
    const uint64_t deadline = monotonic_ns() + kConnectNs;
    std::vector<uint8_t> data;
    while (monotonic_ns() < deadline) {
        const fabric::ConnectionEvent event = pair_->next_event(&data);
        if (event == wanted) return data;
        if (event != fabric::ConnectionEvent::kNone) die("the connection was refused");
    }
    die("no connection within 10 s");
}

void Endpoint::send(const uint32_t* slots, int count) {
    if (count == 1) return send(slots[0]);
    for (int i = 0; i < count; ++i) send(slots[i], fabric::kMore);
    pair_->ring();
}

void Endpoint::send(uint32_t slot, uint8_t flags) {
    fabric::SendRequest request;
    request.opcode = fabric::Opcode::kWriteImm;
    request.flags = flags;
    if (inline_bytes_ != 0) request.flags |= fabric::kInline;
    // Only signalled sends complete, and completions make room in the send queue.
    if (++sent_ % (queue_depth_ / 2) == 0) request.flags |= fabric::kSignaled;
    request.immediate = slot;
    request.segment_count = 1;
    request.segments[0] = {outgoing(slot), options_.bytes, region_.get()};
    request.remote_address = peer_.address + slot * stride_;
    request.rkey = peer_.rkey;
    int rc = pair_->post_send(request);
    while (rc == -EAGAIN) {
        uint32_t slots[16];
        const int count = poll(slots, 16);
        early_.insert(early_.end(), slots, slots + count);
        rc = pair_->post_send(request);
    }
    check(rc, "post_send");
}

int Endpoint::receive(uint32_t* slots, int max) {
    if (!early_.empty()) [[unlikely]] {
        const auto count = std::min(static_cast<size_t>(max), early_.size());
        std::copy_n(early_.begin(), count, slots);
        early_.erase(early_.begin(), early_.begin() + static_cast<ptrdiff_t>(count));
        return static_cast<int>(count);
    }
    for (;;) {
        const int count = poll(slots, max);
        if (count != 0) return count;
        cpu_relax();
    }
}

int Endpoint::poll(uint32_t* slots, int max) {
    constexpr int kBatch = 16;
    fabric::Completion completion[kBatch];
    const int count = queue_->poll(completion, std::min(max, kBatch));
    check(count, "poll");
    int received = 0;
    for (int i = 0; i < count; ++i) {
        if (completion[i].status != fabric::Status::kSuccess) die("the peer is gone");
        if (completion[i].opcode != fabric::Opcode::kReceiveWrite) continue;
        if (completion[i].immediate >= slots_) die("a message for a slot that there is not");
        slots[received++] = completion[i].immediate;
        if (++receives_taken_ == kReceiveBatch) {
            receives_taken_ = 0;
            check(pair_->post_receives({}, kReceiveBatch), "post_receives");
        }
    }
    return received;
}

void Endpoint::echo(uint32_t slot) {
    std::memcpy(outgoing(slot), landing(slot), options_.bytes);
}

void Endpoint::await_end() {
    std::vector<uint8_t> data;
    fabric::Completion completion;
    while (pair_->next_event(&data) != fabric::ConnectionEvent::kDisconnected) {
        (void)queue_->poll(&completion, 1);
    }
}

}  // namespace rfaas::bench
