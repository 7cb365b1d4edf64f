// A queue pair's life: made in INIT, ready when connected, in error when it fails, and gone.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <bit>

#include "fabric/verbs/verbs.h"

namespace rfaas::fabric::verbs {

namespace {

// A sender that finds no receive posted tries again after 0.12 ms (the code of the standard's
// table). The code 0, which rdma_cm leaves in place, means 655 ms.
constexpr uint8_t kMinRnrTimer = 7;
// 4.096 us * 2^16 = 268 ms without an acknowledgement, eight times: a peer that vanished with work
// in flight is noticed after 2 to 9 seconds (devices may take up to four times the value).
constexpr uint8_t kAckTimeout = 16;
constexpr uint8_t kRetries = 7;

}  // namespace

VerbsQueuePair::VerbsQueuePair(VerbsDevice* device, const QueuePairOptions& options,
                               std::shared_ptr<CmId> cm)
    : device_(device),
      options_(options),
      send_queue_(static_cast<VerbsCompletionQueue*>(options.send_queue)),
      receive_queue_(static_cast<VerbsCompletionQueue*>(options.receive_queue)),
      cm_(std::move(cm)),
      passive_(cm_->get()->verbs != nullptr) {}

int VerbsQueuePair::open() {
    int rc = send_queue_->reserve(options_.send_depth);
    if (rc < 0) return rc;
    reserved_send_ = true;
    rc = receive_queue_->reserve(options_.receive_depth);
    if (rc < 0) return rc;
    reserved_receive_ = true;
    sends_.resize(std::bit_ceil(options_.send_depth));
    receives_.resize(std::bit_ceil(options_.receive_depth));

    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    pending_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!epoll_.valid() || !pending_.valid() || !timer_.valid()) return -errno;
    for (const int fd : {cm_->fd(), pending_.get(), timer_.get()}) {
        epoll_event event = {};
        event.events = EPOLLIN;
        if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
    }

    rc = make_ibv_queue_pair();
    if (rc < 0) return rc;
    rc = device_->add(this, &tag_);
    if (rc < 0) {
        ibv_destroy_qp(std::exchange(qp_, nullptr));
        return rc;
    }
    rc = to_init(passive_);
    if (rc < 0) return rc;
    rc = send_queue_->watch(this, cm_->fd());
    if (rc == 0 && receive_queue_ != send_queue_) rc = receive_queue_->watch(this, cm_->fd());
    return rc;
}

int VerbsQueuePair::make_ibv_queue_pair() {
    uint32_t wanted = std::min(options_.inline_bytes, device_->info().max_inline_bytes);
    for (;;) {
        ibv_qp_init_attr attributes = {};
        attributes.send_cq = send_queue_->get();
        attributes.recv_cq = receive_queue_->get();
        attributes.qp_type = IBV_QPT_RC;
        attributes.cap = {.max_send_wr = options_.send_depth,
                          .max_recv_wr = options_.receive_depth,
                          .max_send_sge = 2,
                          .max_recv_sge = 1,
                          .max_inline_data = wanted};
        qp_ = ibv_create_qp(device_->pd(), &attributes);
        if (qp_ != nullptr) {
            inline_bytes_ = attributes.cap.max_inline_data;
            return 0;
        }
        const int error = errno;
        // Inline room is part of every send entry: a deep queue may have to do with less of it.
        if (wanted == 0 || (error != EINVAL && error != ENOMEM)) return error != 0 ? -error : -EIO;
        wanted /= 2;
    }
}

VerbsQueuePair::~VerbsQueuePair() {
    bool gone = true;
    if (qp_ != nullptr) {
        disconnect();
        send_queue_->unwatch(cm_->fd());
        if (receive_queue_ != send_queue_) receive_queue_->unwatch(cm_->fd());
        gone = ibv_destroy_qp(qp_) == 0;
        device_->remove(tag_);
        send_queue_->drain();
        if (receive_queue_ != send_queue_) receive_queue_->drain();
    }
    if (gone) {
        // Nobody touches the memory any more. (A queue pair that the device would not give up keeps
        // its regions pinned: better a leak than a write to freed pages.)
        retire_sends(sends_posted_ - sends_retired_);
        retire_receives(receives_posted_ - receives_retired_);
    }
    if (reserved_send_) send_queue_->release(options_.send_depth);
    if (reserved_receive_) receive_queue_->release(options_.receive_depth);
}

// To INIT, where receives can be posted: on the first port's default partition at first, and where
// the connection manager says once the address is resolved.
int VerbsQueuePair::to_init(bool resolved) {
    ibv_qp_attr attributes = {};
    attributes.qp_state = IBV_QPS_INIT;
    attributes.port_num = device_->port();
    if (resolved) {
        int mask = 0;
        if (rdma_init_qp_attr(cm_->get(), &attributes, &mask) != 0) return -errno;
        const bool same = attributes.port_num == device_->port() && attributes.pkey_index == 0;
        if (same && !passive_) return 0;
    }
    attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    if (device_->info().atomics) attributes.qp_access_flags |= IBV_ACCESS_REMOTE_ATOMIC;
    return -ibv_modify_qp(qp_, &attributes,
                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

// Through RTR to RTS with the peer's numbers, which the connection manager has, and our timers.
int VerbsQueuePair::to_ready(uint8_t responder_resources, uint8_t initiator_depth) {
    ibv_qp_attr attributes = {};
    int mask = 0;
    attributes.qp_state = IBV_QPS_RTR;
    if (rdma_init_qp_attr(cm_->get(), &attributes, &mask) != 0) return -errno;
    attributes.max_dest_rd_atomic = responder_resources;
    attributes.min_rnr_timer = kMinRnrTimer;
    int rc = ibv_modify_qp(qp_, &attributes, mask | IBV_QP_MIN_RNR_TIMER);
    if (rc != 0) return -rc;

    attributes = {};
    attributes.qp_state = IBV_QPS_RTS;
    if (rdma_init_qp_attr(cm_->get(), &attributes, &mask) != 0) return -errno;
    attributes.max_rd_atomic = initiator_depth;
    attributes.timeout = kAckTimeout;
    attributes.retry_cnt = kRetries;
    attributes.rnr_retry = options_.rnr_retry;
    rc = ibv_modify_qp(qp_, &attributes,
                       mask | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
    return -rc;
}

// What is posted completes as flushed. It cannot fail but for a device that is gone.
void VerbsQueuePair::to_error() {
    ibv_qp_attr attributes = {};
    attributes.qp_state = IBV_QPS_ERR;
    (void)ibv_modify_qp(qp_, &attributes, IBV_QP_STATE);
}

void VerbsQueuePair::push(ConnectionEvent event, std::vector<uint8_t> data) {
    events_.emplace_back(event, std::move(data));
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t bytes = ::write(pending_.get(), &one, sizeof one);
}

ConnectionEvent VerbsQueuePair::next_event(std::vector<uint8_t>* data) {
    data->clear();
    progress();
    if (events_.empty()) return ConnectionEvent::kNone;
    auto [event, bytes] = std::move(events_.front());
    events_.pop_front();
    *data = std::move(bytes);
    if (events_.empty()) {
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t read = ::read(pending_.get(), &count, sizeof count);
    }
    return event;
}

void VerbsQueuePair::established(std::vector<uint8_t> data) {
    timer_.reset();
    state_ = QueuePairState::kConnected;
    push(ConnectionEvent::kEstablished, std::move(data));
}

// The connection did not come about.
void VerbsQueuePair::failed(ConnectionEvent event, std::string_view why) {
    timer_.reset();
    to_error();
    state_ = QueuePairState::kError;
    lost_reported_ = true;  // there was nothing to lose
    std::string text(why);
    if (event == ConnectionEvent::kUnreachable) {
        text = (passive_ ? std::string("the peer") : target_) + ": " + text;
    }
    push(event, {text.begin(), text.end()});
}

// The peer closed or died, or a request failed: the end, told once, here and to the peer.
void VerbsQueuePair::link_lost() {
    if (state_ == QueuePairState::kClosed || lost_reported_) return;
    lost_reported_ = true;
    timer_.reset();
    to_error();
    if (answered_) (void)rdma_disconnect(cm_->get());  // fails when the peer's came first
    state_ = QueuePairState::kError;
    push(ConnectionEvent::kDisconnected, {});
}

void VerbsQueuePair::disconnect() {
    if (state_ == QueuePairState::kClosed) return;
    timer_.reset();
    to_error();
    if (answered_ && !lost_reported_) (void)rdma_disconnect(cm_->get());
    state_ = QueuePairState::kClosed;
}

}  // namespace rfaas::fabric::verbs
