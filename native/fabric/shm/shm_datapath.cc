// Posting and polling. The hot path is post_send ▸ execute_write_imm on one side and consume ▸
// accept_descriptor on the other: for a small message one cache line travels.
#include <algorithm>
#include <cstring>

#include "core/copy.h"
#include "fabric/shm/shm.h"

namespace rfaas::fabric::shm {

namespace {

// What a NIC's smallest useful receiver-not-ready timer would be; rnr_retry counts these.
constexpr uint64_t kRnrTimerNs = 1'000'000;

// Of many messages, descriptors are asked for so long before they are needed: the line of each has
// to come from the other core. Far enough that it is not the one that the peer uses right now.
constexpr uint64_t kAhead = 4;

uint32_t request_length(const SendRequest& request) {
    uint32_t length = 0;
    for (int i = 0; i < request.segment_count; ++i) length += request.segments[i].length;
    return length;
}

void gather(const SendRequest& request, uint8_t* to) {
    for (int i = 0; i < request.segment_count; ++i) {
        const Segment& segment = request.segments[i];
        copy_words(to, segment.address, segment.length);
        to += segment.length;
    }
}

// Bytes [from, from + length) of the gathered message.
void gather_part(const SendRequest& request, uint32_t from, uint32_t length, uint8_t* to) {
    for (int i = 0; i < request.segment_count && length != 0; ++i) {
        const Segment& segment = request.segments[i];
        if (from >= segment.length) {
            from -= segment.length;
            continue;
        }
        const uint32_t part = std::min(length, segment.length - from);
        std::memcpy(to, static_cast<const uint8_t*>(segment.address) + from, part);
        to += part;
        length -= part;
        from = 0;
    }
}

void scatter(const SendRequest& request, const uint8_t* from) {
    for (int i = 0; i < request.segment_count; ++i) {
        const Segment& segment = request.segments[i];
        if (segment.length != 0) std::memcpy(segment.address, from, segment.length);
        from += segment.length;
    }
}

}  // namespace

// ── sending ─────────────────────────────────────────────────────────────────────────────────────

int ShmQueuePair::post_send(const SendRequest& request) {
    if (state_ != QueuePairState::kConnected) return -ENOTCONN;
    if (posted_ - retired_ >= send_depth_) return -EAGAIN;
    if (request.segment_count > 2) return -EINVAL;
    const bool copied = (request.flags & kInline) != 0;
    if (copied && request_length(request) > inline_bytes_) return -EMSGSIZE;
    const uint64_t sends = ++posted_;
    uint32_t sent_bytes = 0;
    Outcome outcome = Outcome::kWait;
    if (waiting_.empty()) [[likely]] {
        outcome = execute(request, sends, &sent_bytes);
        if (outcome == Outcome::kDone || outcome == Outcome::kFailed) [[likely]]
            return 0;
    }
    Waiting& waiting = waiting_.emplace_back();
    waiting.request = request;
    waiting.request.flags &= static_cast<uint8_t>(~(kMore | kQuiet));  // its ring() will be over
    waiting.sends = sends;
    waiting.sent_bytes = sent_bytes;
    if (copied) {
        waiting.inline_bytes.resize(request_length(request));
        gather(request, waiting.inline_bytes.data());
        waiting.request.segment_count = 1;
        waiting.request.segments[0] = {waiting.inline_bytes.data(),
                                       static_cast<uint32_t>(waiting.inline_bytes.size()), nullptr};
    }
    for (int i = 0; i < waiting.request.segment_count; ++i) {
        MemoryRegion* region = waiting.request.segments[i].region;
        if (region != nullptr) region->pin();
    }
    if (waiting_.size() == 1) {
        waiting_since_ = monotonic_ns();
        waiting_for_receive_ = outcome == Outcome::kNotReady;
    }
    progress();
    return 0;
}

// Runs what waits, in order, as far as it goes.
void ShmQueuePair::progress() {
    bool asked = false;
    while (!waiting_.empty() && state_ == QueuePairState::kConnected) {
        Waiting& first = waiting_.front();
        const uint32_t before = first.sent_bytes;
        const Outcome outcome = execute(first.request, first.sends, &first.sent_bytes);
        if (outcome == Outcome::kFailed) return;  // flushed with the rest
        if (outcome != Outcome::kDone) {
            const bool not_ready = outcome == Outcome::kNotReady;
            if (first.sent_bytes != before || not_ready != waiting_for_receive_) {
                waiting_since_ = monotonic_ns();
                waiting_for_receive_ = not_ready;
            }
            // Ask for a wake-up, then look again: the receive may have come in between. Once: a
            // peer that keeps clearing the mark must not keep us here.
            if (outbound_control_->starved.exchange(1) == 0 && !std::exchange(asked, true))
                continue;
            const uint64_t limit = deadline();
            if (limit != 0 && monotonic_ns() >= limit) {
                fail(first.request, first.sends, Status::kRnrRetryExceeded);
            }
            return;
        }
        for (int i = 0; i < first.request.segment_count; ++i) {
            MemoryRegion* region = first.request.segments[i].region;
            if (region != nullptr) region->unpin();
        }
        waiting_.pop_front();
        asked = false;
        waiting_since_ = monotonic_ns();
        waiting_for_receive_ = false;
    }
}

uint64_t ShmQueuePair::deadline() const {
    if (waiting_.empty() || !waiting_for_receive_ || rnr_retry_ == 7) return 0;
    return waiting_since_ + rnr_retry_ * kRnrTimerNs;
}

ShmQueuePair::Outcome ShmQueuePair::execute(const SendRequest& request, uint64_t sends,
                                            uint32_t* sent_bytes) {
    uint64_t length = 0;
    for (int i = 0; i < request.segment_count; ++i) {
        const Segment& segment = request.segments[i];
        length += segment.length;
        if (segment.region != nullptr ? !segment.region->contains(segment.address, segment.length)
                                      : segment.length != 0 && (request.flags & kInline) == 0) {
            fail(request, sends, Status::kLocalProtection);
            return Outcome::kFailed;
        }
    }
    if (length > device_->info().max_message_bytes) {
        fail(request, sends, Status::kLocalLength);
        return Outcome::kFailed;
    }
    const auto bytes = static_cast<uint32_t>(length);
    failure_ = Status::kRemoteAccess;
    Outcome outcome = Outcome::kFailed;
    switch (request.opcode) {
        case Opcode::kWriteImm:
            outcome = execute_write_imm(request, bytes);
            break;
        case Opcode::kSend:
        case Opcode::kSendImm:
            outcome = execute_send(request, bytes, sent_bytes);
            break;
        case Opcode::kWrite:
        case Opcode::kRead:
        case Opcode::kFetchAdd:
        case Opcode::kCompareSwap:
            outcome = execute_one_sided(request, bytes);
            break;
        default:
            failure_ = Status::kRemoteInvalid;
            break;
    }
    if (outcome == Outcome::kDone) [[likely]] {
        if ((request.flags & kSignaled) != 0) complete(request, sends, bytes);
    } else if (outcome == Outcome::kFailed) {
        fail(request, sends, failure_);
    }
    return outcome;
}

ShmQueuePair::Outcome ShmQueuePair::execute_write_imm(const SendRequest& request, uint32_t length) {
    if (!receive_available()) [[unlikely]]
        return Outcome::kNotReady;
    uint8_t* target = nullptr;
    if (length != 0) {
        const Outcome found =
            resolve(request.rkey, request.remote_address, length, kRemoteWrite, &target);
        if (found != Outcome::kDone) [[unlikely]]
            return found;
    }
    Descriptor* descriptor = next_descriptor();
    if (descriptor == nullptr) [[unlikely]]
        return Outcome::kWait;
    uint32_t flags = 0;
    if (length <= kInlineBytes) {
        // Inside the descriptor: the receiver places it when it takes the message.
        gather(request, descriptor->bytes);
        note_placed(request.remote_address, length);
        flags = kTagInline;
    } else {
        if (overlaps_placed(request.remote_address, length)) return Outcome::kWait;
        gather(request, target);
        note_placed(0, 0);
    }
    descriptor->immediate = request.immediate;
    descriptor->byte_length = length;
    descriptor->rkey = static_cast<uint32_t>(request.rkey);
    descriptor->address = request.remote_address;
    ++receives_used_;
    publish(descriptor, flags | static_cast<uint32_t>(Opcode::kWriteImm), request.flags);
    return Outcome::kDone;
}

ShmQueuePair::Outcome ShmQueuePair::execute_one_sided(const SendRequest& request, uint32_t length) {
    const bool atomic =
        request.opcode == Opcode::kFetchAdd || request.opcode == Opcode::kCompareSwap;
    if (atomic && (length != 8 || request.segment_count != 1 || request.remote_address % 8 != 0)) {
        failure_ = Status::kRemoteInvalid;
        return Outcome::kFailed;
    }
    if (length == 0) return Outcome::kDone;
    const uint32_t access = request.opcode == Opcode::kWrite  ? kRemoteWrite
                            : request.opcode == Opcode::kRead ? kRemoteRead
                                                              : kRemoteAtomic;
    uint8_t* target = nullptr;
    const Outcome found = resolve(request.rkey, request.remote_address, length, access, &target);
    if (found != Outcome::kDone) return found;
    // An earlier small write to these bytes may still be in its descriptor: it comes first.
    if (overlaps_placed(request.remote_address, length)) return Outcome::kWait;
    if (request.opcode == Opcode::kWrite) {
        gather(request, target);
        std::atomic_thread_fence(std::memory_order_release);
    } else if (request.opcode == Opcode::kRead) {
        std::atomic_thread_fence(std::memory_order_acquire);
        scatter(request, target);
    } else {
        std::atomic_ref<uint64_t> word(*reinterpret_cast<uint64_t*>(target));
        uint64_t old = request.compare_add;
        if (request.opcode == Opcode::kFetchAdd) {
            old = word.fetch_add(request.compare_add);
        } else {
            word.compare_exchange_strong(old, request.swap);
        }
        std::memcpy(request.segments[0].address, &old, sizeof old);
    }
    return Outcome::kDone;
}

// Sends go through the peer's bounce area when they do not fit a descriptor: the sender must not be
// able to write to memory that was registered for receiving only.
ShmQueuePair::Outcome ShmQueuePair::execute_send(const SendRequest& request, uint32_t length,
                                                 uint32_t* sent_bytes) {
    if (*sent_bytes == 0) {
        if (!receive_available()) return Outcome::kNotReady;
        if (length != 0) {
            const auto* lengths = reinterpret_cast<const std::atomic<uint32_t>*>(
                outbound_.data() + outbound_shape_.lengths_offset());
            const uint64_t slot = receives_used_ & (outbound_shape_.receive_depth - 1);
            if (length > lengths[slot].load(std::memory_order_relaxed)) {
                Descriptor* descriptor = next_descriptor();
                if (descriptor == nullptr) return Outcome::kWait;
                descriptor->byte_length = length;
                note_placed(0, 0);
                publish(descriptor, kTagTooLong | static_cast<uint32_t>(Opcode::kSend));
                failure_ = Status::kRemoteInvalid;
                return Outcome::kFailed;
            }
        }
    }
    for (;;) {
        Descriptor* descriptor = next_descriptor();
        if (descriptor == nullptr) return Outcome::kWait;
        const uint32_t left = length - *sent_bytes;
        uint32_t flags = 0;
        uint32_t part = left;
        if (left <= kInlineBytes) {
            flags = kTagInline;
            gather_part(request, *sent_bytes, part, descriptor->bytes);
        } else {
            part = std::min(left, kFragmentBytes);
            uint64_t begin = bounce_head_;
            const uint64_t to_end = kBounceBytes - begin % kBounceBytes;
            if (to_end < part) begin += to_end;  // a fragment does not wrap
            if (begin + part - bounce_tail_ > kBounceBytes) {
                if (!refresh_consumed()) return Outcome::kFailed;
                if (begin + part - bounce_tail_ > kBounceBytes) return Outcome::kWait;
            }
            const uint64_t offset = begin % kBounceBytes;
            gather_part(request, *sent_bytes, part,
                        outbound_.data() + outbound_shape_.bounce_offset() + offset);
            bounce_head_ = begin + part;
            descriptor->address = offset;
        }
        note_placed(0, 0);
        descriptor->immediate = request.immediate;
        descriptor->byte_length = part;
        *sent_bytes += part;
        if (*sent_bytes != length) flags |= kTagMore;
        if ((flags & kTagMore) == 0) ++receives_used_;
        publish(descriptor, flags | static_cast<uint32_t>(request.opcode));
        if ((flags & kTagMore) == 0) return Outcome::kDone;
    }
}

// The peer's bytes that [address, address + length) of `rkey` are, mapped here.
ShmQueuePair::Outcome ShmQueuePair::resolve(uint64_t rkey, uint64_t address, uint32_t length,
                                            uint32_t access, uint8_t** out) {
    const uint32_t index = static_cast<uint32_t>(rkey) & kRegionIndexMask;
    const auto* table = reinterpret_cast<const KeyTable*>(peer_keys_.data());
    if (rkey > UINT32_MAX || rkey == 0 ||
        table->keys[index].load(std::memory_order_acquire) != static_cast<uint32_t>(rkey)) {
        failure_ = Status::kRemoteAccess;
        return Outcome::kFailed;
    }
    if (index >= imports_.size() || imports_[index].rkey != rkey) [[unlikely]] {
        // Valid, and not here yet: its announcement is in the socket or waits for room in it.
        service_socket();
        if (peer_gone_) {
            failure_ = Status::kTransportRetryExceeded;
            return Outcome::kFailed;
        }
        if (index >= imports_.size() || imports_[index].rkey != rkey) return Outcome::kWait;
    }
    const Import& import = imports_[index];
    const uint64_t offset = address - import.address;
    if ((import.access & access) == 0 || address < import.address || offset > import.length ||
        length > import.length - offset) {
        failure_ = Status::kRemoteAccess;
        return Outcome::kFailed;
    }
    *out = import.pages.data() + offset;
    return Outcome::kDone;
}

// False: the peer wrote nonsense and the queue pair is broken.
bool ShmQueuePair::refresh_consumed() {
    const uint64_t consumed = outbound_control_->consumed.load(std::memory_order_acquire);
    if (consumed < peer_consumed_ || consumed > published_) {
        broken();
        return false;
    }
    peer_consumed_ = consumed;
    if (consumed != 0) {
        bounce_tail_ = placed_[(consumed - 1) & (outbound_shape_.ring_depth - 1)].bounce_end;
    }
    return true;
}

bool ShmQueuePair::receive_available() {
    if (receives_used_ < peer_receives_) [[likely]]
        return true;
    const uint64_t receives = outbound_control_->receives.load(std::memory_order_acquire);
    if (receives < peer_receives_ || receives - receives_used_ > outbound_shape_.receive_depth) {
        broken();
        return false;
    }
    peer_receives_ = receives;
    return receives_used_ < receives;
}

bool ShmQueuePair::overlaps_placed(uint64_t address, uint32_t length) {
    if (!refresh_consumed()) return true;
    const uint32_t mask = outbound_shape_.ring_depth - 1;
    for (uint64_t position = peer_consumed_; position != published_; ++position) {
        const Placed& placed = placed_[position & mask];
        if (placed.address < address + length && address < placed.address + placed.length) {
            return true;
        }
    }
    return false;
}

Descriptor* ShmQueuePair::next_descriptor() {
    const uint32_t depth = outbound_shape_.ring_depth;
    if (published_ - peer_consumed_ >= depth) [[unlikely]] {
        if (!refresh_consumed() || published_ - peer_consumed_ >= depth) return nullptr;
    }
    return &outbound_ring_[published_ & (depth - 1)];
}

// What the next descriptor carries. Stored where it stays: a copy of fields that were only just
// written would wait until they have left the store buffer.
void ShmQueuePair::note_placed(uint64_t address, uint32_t length) {
    Placed& placed = placed_[published_ & (outbound_shape_.ring_depth - 1)];
    placed.address = address;
    placed.length = length;
    placed.bounce_end = bounce_head_;
}

// With `more` without a barrier, which takes as long as the line that the peer polls needs to get
// here, and is most of what a small message costs its sender: ring() has one for all of them.
void ShmQueuePair::publish(Descriptor* descriptor, uint32_t tag, uint8_t send_flags) {
    const uint32_t lap = lap_tag(published_, outbound_shape_.ring_depth);
    ++published_;
    if ((send_flags & (kMore | kQuiet)) != 0) {
        descriptor->tag.store(lap | tag, std::memory_order_release);
        const uint64_t later = (published_ + kAhead) & (outbound_shape_.ring_depth - 1);
        __builtin_prefetch(&outbound_ring_[later], 1);
        unrung_ = true;
        if ((send_flags & kQuiet) != 0) wake_peer();
        return;
    }
    // Sequentially consistent: the tag must be visible before we look whether the peer sleeps, or
    // both of us could wait.
    descriptor->tag.store(lap | tag, std::memory_order_seq_cst);
    wake_peer();
}

void ShmQueuePair::ring() {
    if (!std::exchange(unrung_, false)) return;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // as in publish()
    wake_peer();
}

void ShmQueuePair::wake_peer() {
    if (outbound_control_->sleeping.load(std::memory_order_seq_cst) == 0) [[likely]]
        return;
    if (outbound_control_->sleeping.exchange(0) != 0) {
        const Message wake;
        (void)send_message(wake, nullptr, 0);  // full: it has wake-ups enough; dead: its problem
    }
}

void ShmQueuePair::complete(const SendRequest& request, uint64_t sends, uint32_t length) {
    Completion completion;
    completion.id = request.id;
    completion.queue_pair = number_;
    completion.byte_length = length;
    completion.opcode = request.opcode;
    send_queue_->push(completion, this, sends);
}

void ShmQueuePair::fail(const SendRequest& request, uint64_t sends, Status status) {
    Completion failed;
    failed.id = request.id;
    failed.queue_pair = number_;
    failed.status = status;
    failed.opcode = request.opcode;
    // If it waited it is the first of the queue: it has its completion, flush() takes the others.
    if (!waiting_.empty() && waiting_.front().sends == sends) {
        for (int i = 0; i < waiting_.front().request.segment_count; ++i) {
            MemoryRegion* region = waiting_.front().request.segments[i].region;
            if (region != nullptr) region->unpin();
        }
        waiting_.pop_front();
    }
    // What has arrived was there before: a peer that ends lets go of its memory right after its
    // last messages.
    Completion arrived;
    while (consume(&arrived, 1) == 1) receive_queue_->push(arrived, this, 0);
    send_queue_->push(failed, this, sends);
    enter_error();
    flush();
}

// ── receiving ───────────────────────────────────────────────────────────────────────────────────

int ShmQueuePair::post_receives(const ReceiveRequest& request, uint32_t count) {
    if (state_ != QueuePairState::kConnected && state_ != QueuePairState::kConnecting) {
        return -ENOTCONN;
    }
    if (count > receive_depth_ - (receives_posted_ - receives_taken_)) return -EAGAIN;
    MemoryRegion* region = request.segment.region;
    if (region != nullptr ? !region->contains(request.segment.address, request.segment.length)
                          : request.segment.length != 0) {
        return -EINVAL;
    }
    auto* lengths =
        reinterpret_cast<std::atomic<uint32_t>*>(inbound_.data() + inbound_shape_.lengths_offset());
    for (; count != 0; --count) {
        if (region != nullptr) region->pin();
        const uint64_t slot = receives_posted_++ & (inbound_shape_.receive_depth - 1);
        receives_[slot] = request;
        lengths[slot].store(request.segment.length, std::memory_order_relaxed);
    }
    inbound_control_->receives.store(receives_posted_, std::memory_order_release);
    if (inbound_control_->starved.load(std::memory_order_acquire) != 0) [[unlikely]] {
        if (inbound_control_->starved.exchange(0) != 0 && socket_.valid()) {
            const Message wake;
            (void)send_message(wake, nullptr, 0);
        }
    }
    return 0;
}

int ShmQueuePair::consume(Completion* out, int max) {
    const uint32_t depth = inbound_shape_.ring_depth;
    int count = 0;
    while (count < max) {
        const Descriptor& descriptor = inbound_ring_[taken_ & (depth - 1)];
        const uint32_t tag = descriptor.tag.load(std::memory_order_acquire);
        if ((tag & ~0xffu) != lap_tag(taken_, depth)) break;
        if (count != 0) __builtin_prefetch(&inbound_ring_[(taken_ + kAhead) & (depth - 1)]);
        if (state_ != QueuePairState::kConnected) [[unlikely]]
            break;
        bool completes = false;
        if (!accept_descriptor(descriptor, tag, &out[count], &completes)) [[unlikely]] {
            enter_error();
            flush();
            break;
        }
        if (completes) ++count;
        inbound_control_->consumed.store(++taken_, std::memory_order_release);
        if (inbound_control_->starved.load(std::memory_order_acquire) != 0) [[unlikely]] {
            if (inbound_control_->starved.exchange(0) != 0) {
                const Message wake;
                (void)send_message(wake, nullptr, 0);
            }
        }
    }
    if (count == 0 && peer_gone_) [[unlikely]]
        finish_if_drained();
    return count;
}

// Takes one descriptor. False: it breaks the protocol, or the receive failed.
bool ShmQueuePair::accept_descriptor(const Descriptor& descriptor, uint32_t tag, Completion* out,
                                     bool* completes) {
    if (receives_taken_ == receives_posted_) return false;  // the peer ignored our credits
    // One copy of each field: the peer may change them while we look.
    const uint32_t immediate = descriptor.immediate;
    const uint32_t length = descriptor.byte_length;
    const uint32_t rkey = descriptor.rkey;
    const uint64_t address = descriptor.address;
    const auto opcode = static_cast<Opcode>(tag & 0xf);
    const bool is_inline = (tag & kTagInline) != 0;
    if (is_inline && length > kInlineBytes) return false;
    const ReceiveRequest& receive = receives_[receives_taken_ & (inbound_shape_.receive_depth - 1)];

    if (opcode == Opcode::kWriteImm) {
        if (assembled_ != 0) return false;
        if (length != 0) {
            const ShmRegion* region = device_->region(rkey);
            const auto* bytes = reinterpret_cast<const uint8_t*>(address);
            if (region == nullptr || (region->access() & kRemoteWrite) == 0 ||
                !region->contains(bytes, length)) {
                return false;
            }
            if (is_inline) {
                copy_words(region->data() + (bytes - region->data()), descriptor.bytes, length);
            }
        }
        out->byte_length = length;
        out->opcode = Opcode::kReceiveWrite;
        out->has_immediate = true;
    } else if (opcode == Opcode::kSend || opcode == Opcode::kSendImm) {
        const bool too_long = (tag & kTagTooLong) != 0;
        if (too_long || length > receive.segment.length - assembled_) {
            Completion completion;
            completion.id = receive.id;
            completion.queue_pair = number_;
            completion.status = Status::kLocalLength;
            completion.opcode = Opcode::kReceive;
            if (receive.segment.region != nullptr) receive.segment.region->unpin();
            ++receives_taken_;
            receive_queue_->push(completion, this, 0);
            return false;
        }
        if (!is_inline && (address > kBounceBytes || length > kBounceBytes - address)) return false;
        const uint8_t* from = is_inline
                                  ? descriptor.bytes
                                  : inbound_.data() + inbound_shape_.bounce_offset() + address;
        if (length != 0) {
            std::memcpy(static_cast<uint8_t*>(receive.segment.address) + assembled_, from, length);
        }
        assembled_ += length;
        // Empty fragments, which no sender has, could go on for ever.
        if ((tag & kTagMore) != 0) return length != 0;
        out->byte_length = std::exchange(assembled_, 0);
        out->opcode = Opcode::kReceive;
        out->has_immediate = opcode == Opcode::kSendImm;
    } else {
        return false;
    }
    out->id = receive.id;
    out->queue_pair = number_;
    out->immediate = out->has_immediate ? immediate : 0;
    out->status = Status::kSuccess;
    if (receive.segment.region != nullptr) receive.segment.region->unpin();
    ++receives_taken_;
    *completes = true;
    return true;
}

}  // namespace rfaas::fabric::shm
