// Posting and polling. A wr_id is tag << 32 | receive << 31 | position: it finds the queue pair and
// the entry of its ring, also for entries that complete without having asked to (errors).
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "fabric/verbs/verbs.h"

namespace rfaas::fabric::verbs {

namespace {

constexpr int kPollBatch = 16;
constexpr uint32_t kReceiveChain = 16;
constexpr uint64_t kReceiveBit = uint64_t{1} << 31;
constexpr uint64_t kPositionMask = kReceiveBit - 1;
constexpr uint64_t kNowhere = 0xffff'ffff'0000'0000;  // aligned, and outside every address space

// Advances once per scheduler tick and costs a few nanoseconds.
uint64_t ticks() {
    timespec now = {};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

bool to_ibv(Opcode opcode, ibv_wr_opcode* out) {
    switch (opcode) {
        case Opcode::kWrite:
            *out = IBV_WR_RDMA_WRITE;
            return true;
        case Opcode::kWriteImm:
            *out = IBV_WR_RDMA_WRITE_WITH_IMM;
            return true;
        case Opcode::kRead:
            *out = IBV_WR_RDMA_READ;
            return true;
        case Opcode::kSend:
            *out = IBV_WR_SEND;
            return true;
        case Opcode::kSendImm:
            *out = IBV_WR_SEND_WITH_IMM;
            return true;
        case Opcode::kFetchAdd:
            *out = IBV_WR_ATOMIC_FETCH_AND_ADD;
            return true;
        case Opcode::kCompareSwap:
            *out = IBV_WR_ATOMIC_CMP_AND_SWP;
            return true;
        default:
            return false;
    }
}

Status to_status(ibv_wc_status status) {
    switch (status) {
        case IBV_WC_SUCCESS:
            return Status::kSuccess;
        case IBV_WC_LOC_LEN_ERR:
            return Status::kLocalLength;
        case IBV_WC_LOC_PROT_ERR:
            return Status::kLocalProtection;
        case IBV_WC_LOC_ACCESS_ERR:
        case IBV_WC_REM_ACCESS_ERR:
            return Status::kRemoteAccess;
        case IBV_WC_REM_INV_REQ_ERR:
        case IBV_WC_REM_OP_ERR:
            return Status::kRemoteInvalid;
        case IBV_WC_RNR_RETRY_EXC_ERR:
            return Status::kRnrRetryExceeded;
        case IBV_WC_RETRY_EXC_ERR:
        case IBV_WC_RESP_TIMEOUT_ERR:
            return Status::kTransportRetryExceeded;
        case IBV_WC_WR_FLUSH_ERR:
            return Status::kFlushed;
        default:
            return Status::kFatal;
    }
}

// A receive that fails was too short, or fell with its queue pair. Devices differ in what they call
// the first (Soft-RoCE: an operation error), and Soft-RoCE blames a receive for the write that took
// it.
Status to_receive_status(ibv_wc_status status) {
    switch (status) {
        case IBV_WC_LOC_QP_OP_ERR:
        case IBV_WC_REM_INV_REQ_ERR:
            return Status::kLocalLength;
        case IBV_WC_LOC_ACCESS_ERR:
        case IBV_WC_REM_ACCESS_ERR:
        case IBV_WC_REM_OP_ERR:
            return Status::kFlushed;
        default:
            return to_status(status);
    }
}

}  // namespace

// ── the completion queue ────────────────────────────────────────────────────────────────────────

VerbsCompletionQueue::~VerbsCompletionQueue() {
    if (cq_ != nullptr) ibv_destroy_cq(cq_);
    if (channel_ != nullptr) ibv_destroy_comp_channel(channel_);
}

int VerbsCompletionQueue::open(ibv_context* context) {
    channel_ = ibv_create_comp_channel(context);
    if (channel_ == nullptr) return errno != 0 ? -errno : -EIO;
    const int flags = ::fcntl(channel_->fd, F_GETFL);
    if (flags < 0 || ::fcntl(channel_->fd, F_SETFL, flags | O_NONBLOCK) != 0) return -errno;
    cq_ = ibv_create_cq(context, static_cast<int>(depth_), this, channel_, 0);
    if (cq_ == nullptr) return errno != 0 ? -errno : -EIO;
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_.valid()) return -errno;
    return watch(nullptr, channel_->fd);
}

int VerbsCompletionQueue::reserve(uint32_t completions) {
    if (completions > depth_ - reserved_) return -ENOSPC;
    reserved_ += completions;
    return 0;
}

int VerbsCompletionQueue::watch(VerbsQueuePair* queue_pair, int fd) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.ptr = queue_pair;
    return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void VerbsCompletionQueue::unwatch(int fd) {
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

int VerbsCompletionQueue::poll(Completion* out, int max) {
    int count = 0;
    while (!drained_.empty() && count < max) [[unlikely]] {
            out[count++] = drained_.front();
            drained_.pop_front();
        }
    look_at_connections();
    ibv_wc batch[kPollBatch];
    while (count < max) {
        const int asked = std::min(max - count, kPollBatch);
        const int got = ibv_poll_cq(cq_, asked, batch);
        if (got < 0) return count > 0 ? count : -EIO;
        for (int i = 0; i < got; ++i) {
            if (take(batch[i], &out[count])) ++count;
        }
        if (got < asked) break;
    }
    return count;
}

bool VerbsCompletionQueue::take(const ibv_wc& wc, Completion* out) {
    VerbsQueuePair* queue_pair = device_->find(static_cast<uint32_t>(wc.wr_id >> 32));
    return queue_pair != nullptr && queue_pair->completed(wc, out);
}

void VerbsCompletionQueue::drain() {
    ibv_wc wc;
    Completion completion;
    while (ibv_poll_cq(cq_, 1, &wc) > 0) {
        if (take(wc, &completion)) drained_.push_back(completion);
    }
}

int VerbsCompletionQueue::arm() {
    return -ibv_req_notify_cq(cq_, 0);
}

void VerbsCompletionQueue::acknowledge() {
    ibv_cq* cq = nullptr;
    void* context = nullptr;
    unsigned int events = 0;
    while (ibv_get_cq_event(channel_, &cq, &context) == 0) ++events;
    if (events != 0) ibv_ack_cq_events(cq_, events);
    service_connections();
}

void VerbsCompletionQueue::service_connections() {
    epoll_event events[16];
    int count = 0;
    do {
        count = ::epoll_wait(epoll_.get(), events, std::size(events), 0);
        for (int i = 0; i < count; ++i) {
            if (events[i].data.ptr != nullptr) {
                static_cast<VerbsQueuePair*>(events[i].data.ptr)->progress();
            }
        }
    } while (count == static_cast<int>(std::size(events)));
}

// A program that only ever polls learns of a dead peer here, within a tick: the device says nothing
// while no request is in flight.
void VerbsCompletionQueue::look_at_connections() {
    const uint64_t now = ticks();
    if (now == last_look_) [[likely]]
        return;
    last_look_ = now;
    service_connections();
}

// ── the queue pair ──────────────────────────────────────────────────────────────────────────────

int VerbsQueuePair::post_send(const SendRequest& request) {
    if (state_ != QueuePairState::kConnected) return -ENOTCONN;
    if (sends_posted_ - sends_retired_ >= options_.send_depth) return -EAGAIN;
    Prepared prepared;
    const int rc = prepare(request, &prepared);
    if (rc != 0) [[unlikely]]
        return rc;
    const bool more = (request.flags & kMore) != 0;
    if (chained_ != 0 || more) [[unlikely]] {
        if (!prepared.copied || prepared.length <= kChainedBytes) {
            chain(request, prepared, more);
            return 0;
        }
        ring();  // too long to be kept: it goes by itself, behind them
    }
    ibv_send_wr* refused = nullptr;
    const int failed = ibv_post_send(qp_, &prepared.wr, &refused);
    if (failed != 0) [[unlikely]]
        return failed == ENOMEM ? -EAGAIN : -EINVAL;
    remember(request, prepared);
    return 0;
}

// What the device is to be asked for; nothing is posted.
int VerbsQueuePair::prepare(const SendRequest& request, Prepared* out) const {
    ibv_send_wr& wr = out->wr;
    wr = {};
    if (!to_ibv(request.opcode, &wr.opcode) || request.segment_count > 2) return -EINVAL;
    const bool atomic =
        request.opcode == Opcode::kFetchAdd || request.opcode == Opcode::kCompareSwap;
    // Not left to the devices: some refuse to post it, others send it and fail.
    if (atomic && (request.segment_count != 1 || request.segments[0].length != 8 ||
                   request.remote_address % 8 != 0)) {
        return -EINVAL;
    }
    uint64_t length = 0;
    bool copied = (request.flags & kInline) != 0;
    if (copied && (atomic || request.opcode == Opcode::kRead)) return -EINVAL;
    for (int i = 0; i < request.segment_count; ++i) {
        const Segment& segment = request.segments[i];
        length += segment.length;
        out->list[i].addr = reinterpret_cast<uint64_t>(segment.address);
        out->list[i].length = segment.length;
        out->list[i].lkey =
            segment.region != nullptr ? static_cast<const VerbsRegion*>(segment.region)->lkey() : 0;
    }
    if (length > device_->info().max_message_bytes) return -EINVAL;
    if (copied) {
        if (length > inline_bytes_) return -EMSGSIZE;
        for (int i = 0; i < request.segment_count; ++i) {
            const Segment& segment = request.segments[i];
            // Bytes outside the region are for the device to refuse, not for the copy to read.
            if (segment.region != nullptr &&
                !segment.region->contains(segment.address, segment.length)) {
                copied = false;
            }
        }
    }
    out->length = static_cast<uint32_t>(length);
    out->copied = copied;

    wr.wr_id = uint64_t{tag_} << 32 | (sends_posted_ & kPositionMask);
    wr.sg_list = out->list;
    wr.num_sge = request.segment_count;
    if ((request.flags & kSignaled) != 0) wr.send_flags |= IBV_SEND_SIGNALED;
    if ((request.flags & kFence) != 0) wr.send_flags |= IBV_SEND_FENCE;
    if (copied) wr.send_flags |= IBV_SEND_INLINE;
    wr.imm_data = htonl(request.immediate);
    // Keys of this provider have 32 bits. A longer one names no region: let the peer say so, by
    // asking for bytes that no region has.
    const bool possible = request.rkey <= UINT32_MAX;
    const uint64_t remote_address = possible ? request.remote_address : kNowhere;
    if (atomic) {
        wr.wr.atomic.remote_addr = remote_address;
        wr.wr.atomic.compare_add = request.compare_add;
        wr.wr.atomic.swap = request.swap;
        wr.wr.atomic.rkey = static_cast<uint32_t>(request.rkey);
    } else {
        wr.wr.rdma.remote_addr = remote_address;
        wr.wr.rdma.rkey = static_cast<uint32_t>(request.rkey);
    }
    return 0;
}

void VerbsQueuePair::remember(const SendRequest& request, const Prepared& prepared) {
    Send& send = sends_[sends_posted_++ & (sends_.size() - 1)];
    send = {request.id, {}, prepared.length, request.opcode};
    for (int i = 0; i < request.segment_count && !prepared.copied; ++i) {
        send.regions[i] = request.segments[i].region;
        if (send.regions[i] != nullptr) send.regions[i]->pin();
    }
}

// Several requests are posted at once: each post takes the device's lock and rings its doorbell,
// which on Soft-RoCE is a system call. Inline bytes are the caller's again when this returns.
void VerbsQueuePair::chain(const SendRequest& request, const Prepared& prepared, bool more) {
    Chained& link = chain_[chained_];
    link.request = prepared;
    link.request.wr.sg_list = link.request.list;
    if (prepared.copied) {
        uint8_t* end = link.bytes;
        for (int i = 0; i < request.segment_count; ++i) {
            const Segment& segment = request.segments[i];
            if (segment.length != 0) std::memcpy(end, segment.address, segment.length);
            end += segment.length;
        }
        link.request.list[0] = {reinterpret_cast<uint64_t>(link.bytes), prepared.length, 0};
        link.request.wr.num_sge = prepared.length != 0 ? 1 : 0;
    }
    if (chained_ != 0) chain_[chained_ - 1].request.wr.next = &link.request.wr;
    remember(request, prepared);
    if (++chained_ == kSendChain || !more) ring();
}

void VerbsQueuePair::ring() {
    const uint32_t count = std::exchange(chained_, 0);
    if (count == 0 || state_ == QueuePairState::kClosed) return;
    ibv_send_wr* refused = nullptr;
    // In error, too: the device flushes them. There was room for all, so that a device which takes
    // none of them is broken, although it has not said so yet.
    if (ibv_post_send(qp_, &chain_[0].request.wr, &refused) != 0) [[unlikely]]
        link_lost();
}

int VerbsQueuePair::post_receives(const ReceiveRequest& request, uint32_t count) {
    if (state_ != QueuePairState::kConnected && state_ != QueuePairState::kConnecting) {
        return -ENOTCONN;
    }
    if (count > options_.receive_depth - (receives_posted_ - receives_retired_)) return -EAGAIN;
    const Segment& segment = request.segment;
    if (segment.region != nullptr ? !segment.region->contains(segment.address, segment.length)
                                  : segment.length != 0) {
        return -EINVAL;
    }
    ibv_sge sge = {};
    if (segment.length != 0) {
        sge.addr = reinterpret_cast<uint64_t>(segment.address);
        sge.length = segment.length;
        sge.lkey = static_cast<const VerbsRegion*>(segment.region)->lkey();
    }
    while (count != 0) {
        ibv_recv_wr chain[kReceiveChain];
        const uint32_t length = std::min(count, kReceiveChain);
        for (uint32_t i = 0; i < length; ++i) {
            const uint64_t position = (receives_posted_ + i) & kPositionMask;
            chain[i].wr_id = uint64_t{tag_} << 32 | kReceiveBit | position;
            chain[i].next = i + 1 < length ? &chain[i + 1] : nullptr;
            chain[i].sg_list = &sge;
            chain[i].num_sge = segment.length != 0 ? 1 : 0;
        }
        ibv_recv_wr* refused = nullptr;
        const int rc = ibv_post_recv(qp_, chain, &refused);
        const auto posted = rc == 0 ? length : static_cast<uint32_t>(refused - chain);
        for (uint32_t i = 0; i < posted; ++i) {
            receives_[receives_posted_++ & (receives_.size() - 1)] = {request.id, segment.region};
            if (segment.region != nullptr) segment.region->pin();
        }
        if (rc != 0) [[unlikely]]
            return rc == ENOMEM ? -EAGAIN : -EINVAL;
        count -= length;
    }
    return 0;
}

// A completion speaks for all that was posted before it, too: those asked for none.
bool VerbsQueuePair::completed(const ibv_wc& wc, Completion* out) {
    const bool received = (wc.wr_id & kReceiveBit) != 0;
    const uint64_t retired = received ? receives_retired_ : sends_retired_;
    const uint64_t posted = received ? receives_posted_ : sends_posted_;
    const uint64_t ahead = (wc.wr_id - retired) & kPositionMask;
    if (ahead >= posted - retired) return false;

    *out = {};
    out->queue_pair = qp_->qp_num;
    out->status = received ? to_receive_status(wc.status) : to_status(wc.status);
    if (received) {
        const Receive& receive = receives_[(retired + ahead) & (receives_.size() - 1)];
        out->id = receive.id;
        out->opcode = Opcode::kReceive;
        if (wc.status == IBV_WC_SUCCESS) {
            if (wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM) out->opcode = Opcode::kReceiveWrite;
            out->byte_length = wc.byte_len;
            out->has_immediate = (wc.wc_flags & IBV_WC_WITH_IMM) != 0;
            if (out->has_immediate) out->immediate = ntohl(wc.imm_data);
        }
        retire_receives(ahead + 1);
    } else {
        const Send& send = sends_[(retired + ahead) & (sends_.size() - 1)];
        out->id = send.id;
        out->opcode = send.opcode;
        if (wc.status == IBV_WC_SUCCESS) out->byte_length = send.length;
        retire_sends(ahead + 1);
    }

    if (wc.status != IBV_WC_SUCCESS) [[unlikely]] {
        if (state_ == QueuePairState::kConnected) link_lost();
    } else if (state_ == QueuePairState::kConnecting && received) [[unlikely]] {
        // The peer's first message overtook the word that it is connected; the caller may answer.
        (void)rdma_notify(cm_->get(), IBV_EVENT_COMM_EST);
        established({});
    }
    return true;
}

void VerbsQueuePair::retire_sends(uint64_t count) {
    for (; count != 0; --count) {
        const Send& send = sends_[sends_retired_++ & (sends_.size() - 1)];
        for (MemoryRegion* region : send.regions) {
            if (region != nullptr) region->unpin();
        }
    }
}

void VerbsQueuePair::retire_receives(uint64_t count) {
    for (; count != 0; --count) {
        const Receive& receive = receives_[receives_retired_++ & (receives_.size() - 1)];
        if (receive.region != nullptr) receive.region->unpin();
    }
}

}  // namespace rfaas::fabric::verbs
