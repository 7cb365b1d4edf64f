// Sockets: listening, connecting, and the messages that two queue pairs exchange beside their
// queues. Everything read here comes from another process.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "fabric/shm/shm.h"

namespace rfaas::fabric::shm {

namespace {

constexpr int kMaxFds = 2;
constexpr uint64_t kHelloTimeoutNs = 5'000'000'000;
constexpr size_t kMaxPending = 256;

enum class Received { kMessage, kNothing, kClosed, kGarbage };

// Takes one packet. A packet of another size, magic or version is garbage; its descriptors close.
Received receive(int socket, Message* message, std::vector<UniqueFd>* fds) {
    iovec data = {message, sizeof *message};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxFds)> control = {};
    msghdr header = {};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t bytes = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes < 0) {
        return errno == EAGAIN || errno == EINTR ? Received::kNothing : Received::kClosed;
    }
    fds->clear();
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr;
         part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            fds->emplace_back(fd);
        }
    }
    if (bytes == 0 && fds->empty()) return Received::kClosed;
    const bool whole =
        bytes == sizeof *message && (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    if (!whole || message->magic != kMagic || message->version != kVersion ||
        message->private_bytes > kMaxReplyPrivate) {
        return Received::kGarbage;
    }
    return Received::kMessage;
}

int socket_address(std::string_view path, sockaddr_un* address) {
    *address = {};
    address->sun_family = AF_UNIX;
    if (path.empty()) return -EINVAL;
    if (path.size() >= sizeof address->sun_path) return -ENAMETOOLONG;
    std::memcpy(address->sun_path, path.data(), path.size());
    return 0;
}

Message make_message(MessageType type, const void* data, size_t bytes) {
    Message message;
    message.type = type;
    message.private_bytes = static_cast<uint32_t>(bytes);
    if (data != nullptr) std::memcpy(message.private_data, data, bytes);
    return message;
}

class ShmConnectionRequest final : public ConnectionRequest {
  public:
    ShmConnectionRequest(ShmDevice* device, UniqueFd socket, const Message& hello, UniqueFd queue,
                         UniqueFd keys, std::string peer)
        : device_(device),
          socket_(std::move(socket)),
          hello_(hello),
          queue_(std::move(queue)),
          keys_(std::move(keys)),
          private_data_(hello.private_data, hello.private_data + hello.private_bytes),
          peer_(std::move(peer)) {}
    ~ShmConnectionRequest() override { reject(nullptr, 0); }

    [[nodiscard]] const std::vector<uint8_t>& private_data() const override {
        return private_data_;
    }
    [[nodiscard]] const std::string& peer() const override { return peer_; }

    int prepare(const QueuePairOptions& options, std::unique_ptr<QueuePair>* out) override {
        std::unique_ptr<ShmQueuePair> queue_pair;
        const int rc = device_->make_queue_pair(options, &queue_pair);
        if (rc == 0) *out = std::move(queue_pair);
        return rc;
    }

    int accept(QueuePair* queue_pair, const void* data, size_t bytes) override {
        if (!socket_.valid() || bytes > kMaxReplyPrivate) return -EINVAL;
        return static_cast<ShmQueuePair*>(queue_pair)
            ->start_accept(std::move(socket_), hello_, std::move(queue_), std::move(keys_), data,
                           bytes);
    }

    void reject(const void* data, size_t bytes) override {
        if (!socket_.valid()) return;
        const Message message =
            make_message(MessageType::kRefuse, data, std::min<size_t>(bytes, kMaxReplyPrivate));
        ::send(socket_.get(), &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL);
        socket_.reset();
    }

  private:
    ShmDevice* device_;
    UniqueFd socket_;
    Message hello_;
    UniqueFd queue_, keys_;
    std::vector<uint8_t> private_data_;
    std::string peer_;
};

class ShmListener final : public Listener {
  public:
    // `made`: the socket is of our own making, and so is its file.
    ShmListener(ShmDevice* device, std::string path, UniqueFd socket, UniqueFd epoll, bool made)
        : device_(device),
          path_(std::move(path)),
          socket_(std::move(socket)),
          epoll_(std::move(epoll)),
          made_(made) {}
    ~ShmListener() override {
        if (made_) ::unlink(path_.c_str());
    }

    [[nodiscard]] const std::string& address() const override { return path_; }
    [[nodiscard]] int fd() const override { return epoll_.get(); }

    int next(std::unique_ptr<ConnectionRequest>* out) override {
        accept_pending();
        for (auto pending = pending_.begin(); pending != pending_.end();) {
            Message hello;
            std::vector<UniqueFd> fds;
            const Received received = receive(pending->socket.get(), &hello, &fds);
            if (received == Received::kNothing && monotonic_ns() < pending->deadline) {
                ++pending;
                continue;
            }
            ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pending->socket.get(), nullptr);
            Pending answered = std::move(*pending);
            pending = pending_.erase(pending);
            if (received != Received::kMessage || hello.type != MessageType::kHello ||
                fds.size() != 2 || !hello.shape.valid() ||
                hello.private_bytes > kMaxRequestPrivate) {
                ++dropped_;  // not one of us, or too slow: closing the socket is the answer
                continue;
            }
            *out = std::make_unique<ShmConnectionRequest>(device_, std::move(answered.socket),
                                                          hello, std::move(fds[0]),
                                                          std::move(fds[1]), answered.peer);
            return 0;
        }
        return -EAGAIN;
    }

  private:
    struct Pending {
        UniqueFd socket;
        uint64_t deadline;
        std::string peer;
    };

    void accept_pending() {
        for (;;) {
            UniqueFd socket(
                ::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!socket.valid()) return;
            ucred peer = {};
            socklen_t size = sizeof peer;
            if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) continue;
            // Ours are for the same user and root. An inherited socket is for whom its maker gave
            // the file to: the kernel has checked it, by users that may have no name for us.
            if (made_ && peer.uid != ::geteuid() && peer.uid != 0) continue;
            if (pending_.size() == kMaxPending) pending_.erase(pending_.begin());
            epoll_event event = {};
            event.events = EPOLLIN;
            if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) continue;
            pending_.push_back(
                {std::move(socket), monotonic_ns() + kHelloTimeoutNs,
                 "pid " + std::to_string(peer.pid) + " uid " + std::to_string(peer.uid)});
        }
    }

    ShmDevice* device_;
    std::string path_;
    UniqueFd socket_, epoll_;
    bool made_;
    std::vector<Pending> pending_;
};

// "fd:4": a listening socket that whoever started this process made for it. A descriptor can be
// taken over once.
int adopt_listener(ShmDevice* device, std::string_view number, std::unique_ptr<Listener>* out) {
    int fd = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), fd);
    if (error != std::errc() || end != number.data() + number.size() || fd <= STDERR_FILENO) {
        return -EINVAL;
    }
    int listening = 0, type = 0;
    socklen_t size = sizeof listening;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
        ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
        return -errno;
    }
    sockaddr_un address = {};
    size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return -errno;
    if (listening == 0 || type != SOCK_SEQPACKET || address.sun_family != AF_UNIX ||
        size <= offsetof(sockaddr_un, sun_path) || address.sun_path[0] == '\0') {
        return -EINVAL;
    }
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event = {};
    event.events = EPOLLIN;
    if (!epoll.valid() || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0 ||
        ::fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return -errno;
    }
    const std::string path(address.sun_path,
                           ::strnlen(address.sun_path, size - offsetof(sockaddr_un, sun_path)));
    *out = std::make_unique<ShmListener>(device, path, UniqueFd(fd), std::move(epoll), false);
    return 0;
}

}  // namespace

int make_listener(ShmDevice* device, std::string_view path, int backlog,
                  std::unique_ptr<Listener>* out) {
    if (path.starts_with("fd:")) return adopt_listener(device, path.substr(3), out);
    sockaddr_un address = {};
    int rc = socket_address(path, &address);
    if (rc < 0) return rc;
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!socket.valid() || !epoll.valid()) return -errno;
    // bind() honours fchmod() on the socket: the file is never open to others, not for a moment.
    if (::fchmod(socket.get(), 0600) != 0) return -errno;
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return -errno;
    }
    const std::string bound(path);
    epoll_event event = {};
    event.events = EPOLLIN;
    if (::listen(socket.get(), backlog) != 0 ||
        ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) {
        rc = -errno;
        ::unlink(bound.c_str());
        return rc;
    }
    *out = std::make_unique<ShmListener>(device, bound, std::move(socket), std::move(epoll), true);
    return 0;
}

int ShmDevice::connect(std::string_view address, const QueuePairOptions& options, const void* data,
                       size_t bytes, std::unique_ptr<QueuePair>* out) {
    if (bytes > kMaxRequestPrivate) return -EMSGSIZE;
    sockaddr_un name = {};
    int rc = socket_address(address, &name);
    if (rc < 0) return rc;
    std::unique_ptr<ShmQueuePair> queue_pair;
    rc = make_queue_pair(options, &queue_pair);
    if (rc < 0) return rc;
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return -errno;
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
        return -errno;
    }
    rc = queue_pair->start_connect(std::move(socket), data, bytes);
    if (rc < 0) return rc;
    *out = std::move(queue_pair);
    return 0;
}

int ShmQueuePair::start_connect(UniqueFd socket, const void* data, size_t bytes) {
    socket_ = std::move(socket);
    Message hello = make_message(MessageType::kHello, data, bytes);
    hello.shape = inbound_shape_;
    const int fds[] = {inbound_fd_.get(), device_->keys_fd()};
    const int rc = send_message(hello, fds, 2);
    if (rc < 0) return rc;
    inbound_fd_.reset();
    epoll_event event = {};
    event.events = EPOLLIN | EPOLLRDHUP;
    return ::epoll_ctl(events_.get(), EPOLL_CTL_ADD, socket_.get(), &event) == 0 ? 0 : -errno;
}

int ShmQueuePair::start_accept(UniqueFd socket, const Message& hello, UniqueFd queue, UniqueFd keys,
                               const void* data, size_t bytes) {
    socket_ = std::move(socket);
    Message welcome = make_message(MessageType::kWelcome, data, bytes);
    welcome.shape = inbound_shape_;
    const int fds[] = {inbound_fd_.get(), device_->keys_fd()};
    int rc = send_message(welcome, fds, 2);
    if (rc < 0) return rc;
    inbound_fd_.reset();
    epoll_event event = {};
    event.events = EPOLLIN | EPOLLRDHUP;
    if (::epoll_ctl(events_.get(), EPOLL_CTL_ADD, socket_.get(), &event) != 0) return -errno;
    rc = connected(hello, std::move(queue), std::move(keys));
    if (rc < 0) return rc;
    establish({});
    return 0;
}

// Whoever has read it from the socket, which a completion queue reads too: fd() is readable until
// next_event() has told it.
void ShmQueuePair::establish(std::vector<uint8_t> data) {
    established_pending_ = true;
    event_data_ = std::move(data);
    epoll_event event = {};
    event.events = EPOLLOUT | EPOLLRDHUP;
    ::epoll_ctl(events_.get(), EPOLL_CTL_MOD, socket_.get(), &event);
}

// Both sides have each other's queue: map it and tell the peer about our regions.
int ShmQueuePair::connected(const Message& message, UniqueFd queue, UniqueFd keys) {
    if (!message.shape.valid()) return -EPROTO;
    outbound_shape_ = message.shape;
    int rc = Pages::import(queue.get(), outbound_shape_.bytes(), true, &outbound_);
    if (rc < 0) return rc;
    rc = Pages::import(keys.get(), sizeof(KeyTable), false, &peer_keys_);
    if (rc < 0) return rc;
    outbound_control_ = reinterpret_cast<QueueControl*>(outbound_.data());
    outbound_ring_ =
        reinterpret_cast<Descriptor*>(outbound_.data() + outbound_shape_.ring_offset());
    placed_.assign(outbound_shape_.ring_depth, Placed{});
    state_ = QueuePairState::kConnected;
    send_queue_->watch(this);
    if (receive_queue_ != send_queue_) receive_queue_->watch(this);
    device_->add(this);
    for (const ShmRegion* region : device_->regions()) {
        if (region == nullptr || region->access() == 0) continue;
        rc = announce(*region);
        if (rc < 0) return rc;
    }
    return 0;
}

int ShmQueuePair::send_message(const Message& message, const int* fds, int fd_count) {
    iovec data = {const_cast<Message*>(&message), sizeof message};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxFds)> control = {};
    msghdr header = {};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    if (fd_count > 0) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(sizeof(int) * static_cast<size_t>(fd_count));
        cmsghdr* part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<size_t>(fd_count));
        std::memcpy(CMSG_DATA(part), fds, sizeof(int) * static_cast<size_t>(fd_count));
    }
    for (;;) {
        if (::sendmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
        if (errno != EINTR) return -errno;
    }
}

int ShmQueuePair::announce(const ShmRegion& region) {
    if (state_ != QueuePairState::kConnected) return 0;
    Message message;
    message.type = MessageType::kRegion;
    message.rkey = region.key();
    message.access = region.access();
    message.address = reinterpret_cast<uint64_t>(region.data());
    message.length = region.length();
    announcements_.emplace_back(message, region.fd());
    flush_announcements();
    return 0;
}

void ShmQueuePair::withdraw(uint32_t rkey) {
    if (state_ != QueuePairState::kConnected) return;
    // Its descriptor is about to close: an announcement that still waits must go with it.
    const size_t unsent = std::erase_if(announcements_, [rkey](const auto& entry) {
        return entry.first.type == MessageType::kRegion && entry.first.rkey == rkey;
    });
    if (unsent != 0) return;  // the peer has never heard of it
    Message message;
    message.type = MessageType::kRegionGone;
    message.rkey = rkey;
    announcements_.emplace_back(message, -1);
    flush_announcements();
}

// A full socket keeps the rest for later; a dead one is noticed by whoever reads it. Later is when
// there is room: we may be asleep by then, and the peer waiting for what it has not been told.
void ShmQueuePair::flush_announcements() {
    while (!announcements_.empty()) {
        const auto& [message, fd] = announcements_.front();
        if (send_message(message, &fd, fd >= 0 ? 1 : 0) < 0) break;
        announcements_.pop_front();
    }
    const bool wanted = !announcements_.empty() && !peer_gone_;
    if (wanted == wants_room_) return;
    wants_room_ = wanted;
    send_queue_->watch_for_room(this, wanted);
    if (receive_queue_ != send_queue_) receive_queue_->watch_for_room(this, wanted);
}

void ShmQueuePair::service_socket() {
    if (!socket_.valid() || peer_gone_ || state_ == QueuePairState::kClosed) return;
    if (state_ == QueuePairState::kConnected) flush_announcements();
    // Bounded: a peer that floods its socket cannot keep us here.
    for (int i = 0; i < 64; ++i) {
        Message message;
        std::vector<UniqueFd> fds;
        switch (receive(socket_.get(), &message, &fds)) {
            case Received::kNothing:
                return;
            case Received::kClosed:
            case Received::kGarbage:
                peer_gone();
                return;
            case Received::kMessage:
                handle_message(message, std::move(fds));
                if (peer_gone_) return;
        }
    }
}

void ShmQueuePair::handle_message(const Message& message, std::vector<UniqueFd> fds) {
    const bool connecting = state_ == QueuePairState::kConnecting;
    switch (message.type) {
        case MessageType::kWelcome: {
            if (!connecting || fds.size() != 2) break;
            if (connected(message, std::move(fds[0]), std::move(fds[1])) < 0) break;
            establish({message.private_data, message.private_data + message.private_bytes});
            return;
        }
        case MessageType::kRefuse:
            if (!connecting) break;
            event_data_.assign(message.private_data, message.private_data + message.private_bytes);
            refused_ = ConnectionEvent::kRejected;
            peer_gone();
            return;
        case MessageType::kRegion: {
            const uint32_t index = message.rkey & kRegionIndexMask;
            if (connecting || fds.size() != 1 || message.length == 0 ||
                message.length > UINT64_MAX - message.address) {
                break;
            }
            Import import;
            import.rkey = message.rkey;
            import.access = message.access;
            import.address = message.address;
            import.length = message.length;
            const bool writable = (message.access & (kRemoteWrite | kRemoteAtomic)) != 0;
            if (Pages::import(fds[0].get(), message.length, writable, &import.pages) < 0) break;
            if (imports_.size() <= index) imports_.resize(index + 1);
            imports_[index] = std::move(import);
            return;
        }
        case MessageType::kRegionGone: {
            const uint32_t index = message.rkey & kRegionIndexMask;
            if (index < imports_.size() && imports_[index].rkey == message.rkey) {
                imports_[index] = Import{};
            }
            return;
        }
        case MessageType::kWake:
            // Whoever read the socket, the one who sleeps on a completion queue must hear it.
            receive_queue_->notify();
            if (send_queue_ != receive_queue_) send_queue_->notify();
            return;
        default:
            break;
    }
    peer_gone();  // out of protocol
}

// Only notes it: the request that is running now must not be flushed under its own feet. Whoever
// polls next delivers what is left and flushes.
void ShmQueuePair::peer_gone() {
    if (peer_gone_) return;
    peer_gone_ = true;
    ::shutdown(socket_.get(), SHUT_RDWR);  // fd() tells of it, also if the peer has not closed it
    send_queue_->unwatch(this);
    if (receive_queue_ != send_queue_) receive_queue_->unwatch(this);
    receive_queue_->notify();
    if (send_queue_ != receive_queue_) send_queue_->notify();
}

ConnectionEvent ShmQueuePair::next_event(std::vector<uint8_t>* data) {
    data->clear();
    if (!established_pending_) {
        service_socket();
        finish_if_drained();
    }
    if (established_pending_) {
        established_pending_ = false;
        *data = event_data_;
        // From now on the completion queue reads the socket; fd() tells of the peer's end only.
        epoll_event event = {};
        event.events = EPOLLRDHUP;
        ::epoll_ctl(events_.get(), EPOLL_CTL_MOD, socket_.get(), &event);
        return ConnectionEvent::kEstablished;
    }
    if (!peer_gone_ || disconnect_reported_) return ConnectionEvent::kNone;
    disconnect_reported_ = true;
    // An ended socket stays readable for ever; it has said all it can.
    ::epoll_ctl(events_.get(), EPOLL_CTL_DEL, socket_.get(), nullptr);
    if (outbound_control_ != nullptr) return ConnectionEvent::kDisconnected;
    if (refused_ == ConnectionEvent::kRejected) {
        *data = event_data_;
        return ConnectionEvent::kRejected;
    }
    static constexpr std::string_view kReason = "the peer closed the connection unanswered";
    data->assign(kReason.begin(), kReason.end());
    return ConnectionEvent::kUnreachable;
}

void ShmQueuePair::disconnect() {
    if (state_ == QueuePairState::kClosed) return;
    enter_error();
    flush();
    state_ = QueuePairState::kClosed;
    device_->remove(this);
    if (socket_.valid()) {
        if (!peer_gone_) {
            send_queue_->unwatch(this);
            if (receive_queue_ != send_queue_) receive_queue_->unwatch(this);
        }
        socket_.reset();
    }
}

}  // namespace rfaas::fabric::shm
