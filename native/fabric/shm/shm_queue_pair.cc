// The life of a queue pair: from its pages to the flush of what it never did. Nothing here is on
// the way of a message; that is shm_datapath.cc.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>

#include "fabric/shm/shm.h"

namespace rfaas::fabric::shm {

namespace {

uint32_t next_number() {
    static std::atomic<uint32_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

ShmQueuePair::ShmQueuePair(ShmDevice* device, const QueuePairOptions& options)
    : device_(device),
      send_queue_(static_cast<ShmCompletionQueue*>(options.send_queue)),
      receive_queue_(static_cast<ShmCompletionQueue*>(options.receive_queue)),
      number_(next_number()),
      send_depth_(options.send_depth),
      receive_depth_(options.receive_depth),
      inline_bytes_(options.inline_bytes),
      rnr_retry_(options.rnr_retry) {}

ShmQueuePair::~ShmQueuePair() {
    disconnect();
    if (!attached_) return;
    send_queue_->detach(this);
    receive_queue_->detach(this);
    send_queue_->release(send_depth_);
    receive_queue_->release(receive_depth_);
}

int ShmQueuePair::open() {
    events_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!events_.valid()) return -errno;
    inbound_shape_.receive_depth = std::bit_ceil(receive_depth_);
    inbound_shape_.ring_depth = std::max<uint32_t>(16, inbound_shape_.receive_depth);
    const int made = Pages::create(inbound_shape_.bytes(), true, &inbound_, &inbound_fd_);
    if (made < 0) return made;
    inbound_control_ = reinterpret_cast<QueueControl*>(inbound_.data());
    inbound_ring_ = reinterpret_cast<Descriptor*>(inbound_.data() + inbound_shape_.ring_offset());
    receives_.resize(inbound_shape_.receive_depth);
    int rc = send_queue_->reserve(send_depth_);
    if (rc < 0) return rc;
    rc = receive_queue_->reserve(receive_depth_);
    if (rc < 0) {
        send_queue_->release(send_depth_);
        return rc;
    }
    send_queue_->attach(this);
    receive_queue_->attach(this);
    attached_ = true;
    return 0;
}

// The peer's control words are impossible: cut the link, and the next look at the socket sees it.
void ShmQueuePair::broken() {
    failure_ = Status::kFatal;
    ::shutdown(socket_.get(), SHUT_RDWR);
}

void ShmQueuePair::enter_error() {
    if (state_ == QueuePairState::kConnected || state_ == QueuePairState::kConnecting) {
        state_ = QueuePairState::kError;
        // The peer reads what it has, then the end of the socket.
        if (socket_.valid()) ::shutdown(socket_.get(), SHUT_RDWR);
    }
}

void ShmQueuePair::flush() {
    if (flushed_) return;
    flushed_ = true;
    for (Waiting& waiting : waiting_) {
        for (int i = 0; i < waiting.request.segment_count; ++i) {
            MemoryRegion* region = waiting.request.segments[i].region;
            if (region != nullptr) region->unpin();
        }
        Completion completion;
        completion.id = waiting.request.id;
        completion.queue_pair = number_;
        completion.status = Status::kFlushed;
        completion.opcode = waiting.request.opcode;
        send_queue_->push(completion, this, waiting.sends);
    }
    waiting_.clear();
    for (; receives_taken_ != receives_posted_; ++receives_taken_) {
        const ReceiveRequest& receive =
            receives_[receives_taken_ & (inbound_shape_.receive_depth - 1)];
        if (receive.segment.region != nullptr) receive.segment.region->unpin();
        Completion completion;
        completion.id = receive.id;
        completion.queue_pair = number_;
        completion.status = Status::kFlushed;
        completion.opcode = Opcode::kReceive;
        receive_queue_->push(completion, this, 0);
    }
}

// A peer that went away may have left messages: those are delivered before the rest is flushed.
void ShmQueuePair::finish_if_drained() {
    if (!peer_gone_ || flushed_) return;
    if (state_ == QueuePairState::kConnected && receives_taken_ != receives_posted_) {
        const uint32_t depth = inbound_shape_.ring_depth;
        const uint32_t tag =
            inbound_ring_[taken_ & (depth - 1)].tag.load(std::memory_order_acquire);
        if ((tag & ~0xffu) == lap_tag(taken_, depth)) return;
    }
    enter_error();
    flush();
}

void ShmQueuePair::set_sleeping(bool sleeping) {
    inbound_control_->sleeping.store(sleeping ? 1 : 0, std::memory_order_seq_cst);
}

}  // namespace rfaas::fabric::shm
