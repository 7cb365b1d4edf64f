// Device, completion queue and the provider's entry.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fabric/shm/shm.h"

namespace rfaas::fabric::shm {

namespace {

// Polls without a result between two looks at the sockets: a dead peer is noticed by a spinning
// program within some ten microseconds, for less than one per cent of its time.
constexpr uint32_t kIdlePolls = 4096;

// A receiver that gives us room looks for our `starved` mark without a barrier, which would cost
// more than all else that it does per message. If both of us looked at the wrong moment its wake-up
// is missing; a sleeper with requests that wait looks again by itself this often.
constexpr uint64_t kRecheckNs = 10'000'000;

void drain(int fd) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t bytes = ::read(fd, &count, sizeof count);
}

}  // namespace

DeviceInfo device_info() {
    DeviceInfo info;
    info.provider = "shm";
    info.name = "shm0";
    info.atomics = true;
    info.max_inline_bytes = kInlineBytes;
    info.max_send_depth = kMaxDepth;
    info.max_receive_depth = kMaxDepth;
    info.max_completion_depth = 16 * kMaxDepth;
    info.max_message_bytes = uint64_t{1} << 31;
    info.max_request_private_data = kMaxRequestPrivate;
    info.max_reply_private_data = kMaxReplyPrivate;
    return info;
}

ShmDevice::ShmDevice() : info_(device_info()), regions_(kMaxRegions, nullptr) {}

int ShmDevice::open() {
    return Pages::create(sizeof(KeyTable), false, &keys_, &keys_fd_);
}

int ShmDevice::create_completion_queue(uint32_t depth, std::unique_ptr<CompletionQueue>* out) {
    if (depth == 0 || depth > info_.max_completion_depth) return -EINVAL;
    auto queue = std::make_unique<ShmCompletionQueue>(depth);
    const int rc = queue->open();
    if (rc < 0) return rc;
    *out = std::move(queue);
    return 0;
}

int ShmDevice::listen(std::string_view address, int backlog, std::unique_ptr<Listener>* out) {
    return make_listener(this, address, backlog, out);
}

int ShmDevice::make_queue_pair(const QueuePairOptions& options,
                               std::unique_ptr<ShmQueuePair>* out) {
    const auto fits = [](uint32_t depth) { return depth >= 1 && depth <= kMaxDepth; };
    if (options.send_queue == nullptr || options.receive_queue == nullptr ||
        !fits(options.send_depth) || !fits(options.receive_depth) ||
        options.inline_bytes > kInlineBytes || options.rnr_retry > 7) {
        return -EINVAL;
    }
    auto queue_pair = std::make_unique<ShmQueuePair>(this, options);
    const int rc = queue_pair->open();
    if (rc < 0) return rc;
    *out = std::move(queue_pair);
    return 0;
}

ShmCompletionQueue::ShmCompletionQueue(uint32_t depth) : depth_(depth) {}
ShmCompletionQueue::~ShmCompletionQueue() = default;

int ShmCompletionQueue::open() {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!epoll_.valid() || !event_.valid() || !timer_.valid()) return -errno;
    for (const int fd : {event_.get(), timer_.get()}) {
        epoll_event event = {};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
    }
    return 0;
}

int ShmCompletionQueue::reserve(uint32_t completions) {
    if (completions > depth_ - reserved_) return -ENOSPC;
    reserved_ += completions;
    return 0;
}

void ShmCompletionQueue::attach(ShmQueuePair* queue_pair) {
    if (std::find(queue_pairs_.begin(), queue_pairs_.end(), queue_pair) == queue_pairs_.end()) {
        queue_pairs_.push_back(queue_pair);
    }
}

void ShmCompletionQueue::detach(ShmQueuePair* queue_pair) {
    std::erase(queue_pairs_, queue_pair);
    for (Entry& entry : ready_) {
        if (entry.queue_pair == queue_pair) entry.queue_pair = nullptr;
    }
}

void ShmCompletionQueue::watch(ShmQueuePair* queue_pair) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = queue_pair->socket();
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, queue_pair->socket(), &event);
    // What the peer has sent by now it sent to somebody who had not said that he sleeps.
    if (queue_pair->receives_into(this)) notify();
}

void ShmCompletionQueue::watch_for_room(ShmQueuePair* queue_pair, bool wanted) {
    epoll_event event = {};
    event.events = wanted ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.fd = queue_pair->socket();
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, queue_pair->socket(), &event);
}

void ShmCompletionQueue::unwatch(ShmQueuePair* queue_pair) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, queue_pair->socket(), nullptr);
}

void ShmCompletionQueue::push(const Completion& completion, ShmQueuePair* queue_pair,
                              uint64_t retires) {
    ready_.push_back({completion, queue_pair, retires});
    notify();
}

void ShmCompletionQueue::notify() {
    if (!std::exchange(armed_, false)) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t bytes = ::write(event_.get(), &one, sizeof one);
}

int ShmCompletionQueue::poll(Completion* out, int max) {
    int count = 0;
    while (count < max && !ready_.empty()) [[unlikely]] {
            const Entry& entry = ready_.front();
            if (entry.queue_pair != nullptr && entry.retires != 0) {
                entry.queue_pair->retire(entry.retires);
            }
            out[count++] = entry.completion;
            ready_.pop_front();
        }
    for (ShmQueuePair* queue_pair : queue_pairs_) {
        if (queue_pair->has_waiting()) [[unlikely]]
            queue_pair->progress();
        if (count < max && queue_pair->receives_into(this)) {
            const int taken = queue_pair->consume(out + count, max - count);
            if (taken < 0) return taken;
            count += taken;
        }
    }
    if (count > 0) {
        idle_polls_ = 0;
        return count;
    }
    if (++idle_polls_ >= kIdlePolls) [[unlikely]]
        service();
    // Work of this poll (a dead peer, a waiting request) may have completed something.
    return ready_.empty() || max == 0 ? 0 : poll(out, max);
}

void ShmCompletionQueue::service() {
    idle_polls_ = 0;
    for (size_t i = 0; i < queue_pairs_.size(); ++i) {
        queue_pairs_[i]->service_socket();
        queue_pairs_[i]->finish_if_drained();
    }
}

int ShmCompletionQueue::arm() {
    armed_ = true;
    uint64_t deadline = 0;
    for (ShmQueuePair* queue_pair : queue_pairs_) {
        // One flag in each queue of descriptors: it belongs to whoever sleeps on their receives.
        if (queue_pair->receives_into(this)) queue_pair->set_sleeping(true);
        if (!queue_pair->has_waiting()) continue;
        uint64_t theirs = monotonic_ns() + kRecheckNs;
        const uint64_t limit = queue_pair->deadline();
        if (limit != 0) theirs = std::min(theirs, limit);
        deadline = deadline == 0 ? theirs : std::min(deadline, theirs);
    }
    // Pairs with publish(): what our next look at the ring does not see, its writer sees us sleep.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    itimerspec when = {};
    if (deadline != 0) {
        when.it_value.tv_sec = static_cast<time_t>(deadline / 1'000'000'000);
        when.it_value.tv_nsec = static_cast<long>(deadline % 1'000'000'000);
    }
    if (::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) != 0) return -errno;
    if (!ready_.empty()) notify();
    service();
    return 0;
}

void ShmCompletionQueue::acknowledge() {
    // The caller is awake: peers need not spend a system call on waking it.
    armed_ = false;
    for (ShmQueuePair* queue_pair : queue_pairs_) {
        if (queue_pair->receives_into(this)) queue_pair->set_sleeping(false);
    }
    service();
    drain(event_.get());
    drain(timer_.get());
}

namespace {

class ShmProvider final : public Provider {
  public:
    [[nodiscard]] std::string_view name() const override { return "shm"; }

    int devices(std::vector<DeviceInfo>* out, std::string*) override {
        out->push_back(device_info());
        return 0;
    }

    int open(std::string_view name, std::unique_ptr<Device>* out, std::string* reason) override {
        if (!name.empty() && name != device_info().name) {
            *reason = "no such device; the shm provider has one: " + device_info().name;
            return -ENODEV;
        }
        auto device = std::make_unique<ShmDevice>();
        const int rc = device->open();
        if (rc < 0) {
            *reason = "cannot create shared memory (memfd)";
            return rc;
        }
        *out = std::move(device);
        return 0;
    }
};

}  // namespace
}  // namespace rfaas::fabric::shm

namespace rfaas::fabric {

Provider* shm_provider() {
    static shm::ShmProvider provider;
    return &provider;
}

}  // namespace rfaas::fabric
