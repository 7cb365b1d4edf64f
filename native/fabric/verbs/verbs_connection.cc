// Connecting: rdma_cm ids, the listener, and the steps of a connection from its events.
#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fabric/verbs/verbs.h"

namespace rfaas::fabric::verbs {

namespace {

// The kernel's own limit for a peer that never answers a request is about a minute.
constexpr int kResolveTimeoutMs = 2000;
constexpr int kConnectTimeoutS = 5;

// What the connection manager of InfiniBand says in a rejection.
constexpr int kNobodyListens = 8;
constexpr int kStaleConnection = 10;
constexpr int kRefusedByPeer = 28;

std::string text_of(int error) {
    return std::strerror(error);
}

rdma_conn_param parameters(uint32_t number, const QueuePairOptions& options,
                           uint8_t responder_resources, uint8_t initiator_depth,
                           const std::vector<uint8_t>& data) {
    rdma_conn_param param = {};
    param.qp_num = number;
    param.responder_resources = responder_resources;
    param.initiator_depth = initiator_depth;
    param.flow_control = 1;
    param.retry_count = 7;
    param.rnr_retry_count = options.rnr_retry;
    param.private_data = data.data();
    param.private_data_len = static_cast<uint8_t>(data.size());
    return param;
}

}  // namespace

std::vector<uint8_t> encode_private(const void* data, size_t bytes) {
    std::vector<uint8_t> encoded(1 + bytes);
    encoded[0] = static_cast<uint8_t>(bytes);
    if (bytes != 0) std::memcpy(encoded.data() + 1, data, bytes);
    return encoded;
}

bool decode_private(const std::vector<uint8_t>& padded, std::vector<uint8_t>* out) {
    out->clear();
    if (padded.empty()) return true;
    const size_t bytes = padded[0];
    if (bytes > padded.size() - 1) return false;
    out->assign(padded.begin() + 1, padded.begin() + 1 + static_cast<ptrdiff_t>(bytes));
    return true;
}

// ── rdma_cm ids ─────────────────────────────────────────────────────────────────────────────────

CmId::~CmId() {
    // Every event was acknowledged when it was read, so that this does not wait for one.
    if (id_ != nullptr) rdma_destroy_id(id_);
    if (channel_ != nullptr) rdma_destroy_event_channel(channel_);
}

int CmId::open_channel() {
    channel_ = rdma_create_event_channel();
    if (channel_ == nullptr) return -errno;
    const int flags = ::fcntl(channel_->fd, F_GETFL);
    if (flags < 0 || ::fcntl(channel_->fd, F_SETFL, flags | O_NONBLOCK) != 0) return -errno;
    return 0;
}

int CmId::create(std::shared_ptr<CmId>* out) {
    auto cm = std::make_shared<CmId>();
    const int rc = cm->open_channel();
    if (rc < 0) return rc;
    if (rdma_create_id(cm->channel_, &cm->id_, nullptr, RDMA_PS_TCP) != 0) return -errno;
    *out = std::move(cm);
    return 0;
}

int CmId::adopt(rdma_cm_id* id, std::shared_ptr<CmId>* out) {
    auto cm = std::make_shared<CmId>();
    const int rc = cm->open_channel();
    if (rc < 0 || rdma_migrate_id(id, cm->channel_) != 0) {
        const int error = rc < 0 ? -rc : errno;
        rdma_destroy_id(id);  // rejects
        return -error;
    }
    cm->id_ = id;
    *out = std::move(cm);
    return 0;
}

int CmId::next(CmEvent* out) {
    rdma_cm_event* event = nullptr;
    if (rdma_get_cm_event(channel_, &event) != 0) return errno != 0 ? -errno : -EIO;
    out->type = event->event;
    out->status = event->status;
    out->id = event->id;
    const rdma_conn_param& param = event->param.conn;
    out->responder_resources = param.responder_resources;
    out->initiator_depth = param.initiator_depth;
    const auto* data = static_cast<const uint8_t*>(param.private_data);
    const bool carries = event->event == RDMA_CM_EVENT_CONNECT_REQUEST ||
                         event->event == RDMA_CM_EVENT_CONNECT_RESPONSE ||
                         event->event == RDMA_CM_EVENT_REJECTED;
    out->data.clear();
    if (carries && data != nullptr) out->data.assign(data, data + param.private_data_len);
    // At once: an id cannot be moved or destroyed while one of its events is unacknowledged.
    rdma_ack_cm_event(event);
    return 0;
}

// ── the passive side ────────────────────────────────────────────────────────────────────────────

namespace {

class VerbsConnectionRequest final : public ConnectionRequest {
  public:
    VerbsConnectionRequest(VerbsDevice* device, std::shared_ptr<CmId> cm, CmEvent event,
                           std::vector<uint8_t> private_data)
        : device_(device),
          cm_(std::move(cm)),
          event_(std::move(event)),
          private_data_(std::move(private_data)),
          peer_(format_address(rdma_get_peer_addr(cm_->get()))) {}
    ~VerbsConnectionRequest() override { reject(nullptr, 0); }

    [[nodiscard]] const std::vector<uint8_t>& private_data() const override {
        return private_data_;
    }
    [[nodiscard]] const std::string& peer() const override { return peer_; }

    int prepare(const QueuePairOptions& options, std::unique_ptr<QueuePair>* out) override {
        if (prepared_) return -EINVAL;
        std::unique_ptr<VerbsQueuePair> queue_pair;
        const int rc = device_->make_queue_pair(options, cm_, &queue_pair);
        if (rc < 0) return rc;
        prepared_ = true;
        *out = std::move(queue_pair);
        return 0;
    }

    int accept(QueuePair* queue_pair, const void* data, size_t bytes) override {
        if (answered_ || !prepared_) return -EINVAL;
        if (bytes > kMaxReplyPrivate) return -EMSGSIZE;
        const int rc = static_cast<VerbsQueuePair*>(queue_pair)->start_accept(event_, data, bytes);
        if (rc == 0) answered_ = true;  // else the destructor rejects
        return rc;
    }

    void reject(const void* data, size_t bytes) override {
        if (std::exchange(answered_, true)) return;
        const auto encoded = encode_private(data, std::min(bytes, kMaxReplyPrivate));
        // Fails when the peer has given up, which is as good.
        (void)rdma_reject(cm_->get(), encoded.data(), static_cast<uint8_t>(encoded.size()));
    }

  private:
    VerbsDevice* device_;
    std::shared_ptr<CmId> cm_;
    CmEvent event_;
    std::vector<uint8_t> private_data_;
    std::string peer_;
    bool prepared_ = false;
    bool answered_ = false;
};

class VerbsListener final : public Listener {
  public:
    VerbsListener(VerbsDevice* device, std::shared_ptr<CmId> cm, std::string address)
        : device_(device), cm_(std::move(cm)), address_(std::move(address)) {}

    [[nodiscard]] const std::string& address() const override { return address_; }
    [[nodiscard]] int fd() const override { return cm_->fd(); }

    int next(std::unique_ptr<ConnectionRequest>* out) override {
        CmEvent event;
        for (;;) {
            int rc = cm_->next(&event);
            if (rc < 0) return rc;
            if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL) return -ENODEV;
            if (event.type != RDMA_CM_EVENT_CONNECT_REQUEST) continue;
            std::shared_ptr<CmId> cm;
            rc = CmId::adopt(event.id, &cm);
            if (rc < 0) return rc;  // out of descriptors: worth telling
            std::vector<uint8_t> data;
            // A wildcard listens on every device, and private data may come from anything.
            const bool ours = cm->get()->verbs == device_->context();
            if (!ours || !decode_private(event.data, &data)) {
                (void)rdma_reject(cm->get(), nullptr, 0);
                ++dropped_;
                continue;
            }
            event.id = nullptr;
            *out = std::make_unique<VerbsConnectionRequest>(device_, std::move(cm),
                                                            std::move(event), std::move(data));
            return 0;
        }
    }

  private:
    VerbsDevice* device_;
    std::shared_ptr<CmId> cm_;
    std::string address_;
};

}  // namespace

// address() of a listener on a wildcard names an address of the port's network interface: what a
// worker reports must be something that its client can connect to.
int VerbsDevice::listen(std::string_view address, int backlog, std::unique_ptr<Listener>* out) {
    Address wanted;
    int rc = parse_address(address, &wanted);
    if (rc < 0) return rc;
    std::shared_ptr<CmId> cm;
    rc = CmId::create(&cm);
    if (rc < 0) return rc;
    if (rdma_bind_addr(cm->get(), wanted.get()) != 0) return -errno;
    // An address of an interface that another device carries.
    if (cm->get()->verbs != nullptr && cm->get()->verbs != context_) return -EADDRNOTAVAIL;
    if (rdma_listen(cm->get(), backlog) != 0) return -errno;
    Address bound;
    const sockaddr* local = rdma_get_local_addr(cm->get());
    std::memcpy(&bound.storage, local,
                local->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    if (is_wildcard(bound.get())) {
        rc = replace_wildcard(context_, port_, &bound);
        if (rc < 0) return rc;
    }
    *out = std::make_unique<VerbsListener>(this, std::move(cm), format_address(bound.get()));
    return 0;
}

int VerbsQueuePair::start_accept(const CmEvent& request, const void* data, size_t bytes) {
    progress();  // the peer may have given up
    if (state_ != QueuePairState::kConnecting) return -ENOTCONN;
    // The request's numbers are already seen from here: what the peer wants of us.
    const uint8_t resources =
        std::min(request.responder_resources, device_->max_responder_resources());
    const uint8_t depth = std::min(request.initiator_depth, device_->max_initiator_depth());
    int rc = to_ready(resources, depth);
    if (rc < 0) return rc;
    const auto encoded = encode_private(data, bytes);
    rdma_conn_param param = parameters(number(), options_, resources, depth, encoded);
    if (rdma_accept(cm_->get(), &param) != 0) {
        rc = -errno;
        to_error();
        state_ = QueuePairState::kError;
        return rc;
    }
    answered_ = true;
    return 0;
}

// ── the active side ─────────────────────────────────────────────────────────────────────────────

int VerbsDevice::connect(std::string_view address, const QueuePairOptions& options,
                         const void* data, size_t bytes, std::unique_ptr<QueuePair>* out) {
    if (bytes > kMaxRequestPrivate) return -EMSGSIZE;
    Address to;
    int rc = parse_address(address, &to);
    if (rc < 0) return rc;
    std::shared_ptr<CmId> cm;
    rc = CmId::create(&cm);
    if (rc < 0) return rc;
    std::unique_ptr<VerbsQueuePair> queue_pair;
    rc = make_queue_pair(options, std::move(cm), &queue_pair);
    if (rc < 0) return rc;
    rc = queue_pair->start_connect(address, &to, data, bytes);
    if (rc < 0) return rc;
    *out = std::move(queue_pair);
    return 0;
}

int VerbsQueuePair::start_connect(std::string_view text, Address* address, const void* data,
                                  size_t bytes) {
    target_ = text;
    stage_ = "its address to be resolved";
    greeting_ = encode_private(data, bytes);
    itimerspec limit = {};
    limit.it_value.tv_sec = kConnectTimeoutS;
    if (::timerfd_settime(timer_.get(), 0, &limit, nullptr) != 0) return -errno;
    if (rdma_resolve_addr(cm_->get(), nullptr, address->get(), kResolveTimeoutMs) != 0) {
        // No route and the like are known at once; they are told like all that is known later.
        failed(ConnectionEvent::kUnreachable, text_of(errno));
    }
    return 0;
}

void VerbsQueuePair::progress() {
    CmEvent event;
    while (cm_->next(&event) == 0) handle(event);
    uint64_t expired = 0;
    if (state_ == QueuePairState::kConnecting && timer_.valid() &&
        ::read(timer_.get(), &expired, sizeof expired) > 0) {
        failed(ConnectionEvent::kUnreachable,
               "gave up after " + std::to_string(kConnectTimeoutS) + " s of waiting for " + stage_);
    }
}

void VerbsQueuePair::handle(CmEvent& event) {
    const bool connecting = state_ == QueuePairState::kConnecting;
    switch (event.type) {
        case RDMA_CM_EVENT_ADDR_RESOLVED:
            if (connecting) address_resolved();
            break;
        case RDMA_CM_EVENT_ROUTE_RESOLVED:
            if (connecting) route_resolved();
            break;
        case RDMA_CM_EVENT_CONNECT_RESPONSE:
            if (connecting) {
                responded(event);
            } else {
                (void)rdma_reject(cm_->get(), nullptr, 0);  // too late: nobody waits any more
            }
            break;
        case RDMA_CM_EVENT_ESTABLISHED:  // the passive side's
            if (connecting) established({});
            break;
        case RDMA_CM_EVENT_ADDR_ERROR:
        case RDMA_CM_EVENT_ROUTE_ERROR:
        case RDMA_CM_EVENT_CONNECT_ERROR:
        case RDMA_CM_EVENT_UNREACHABLE:
            if (connecting) {
                failed(ConnectionEvent::kUnreachable,
                       text_of(std::abs(event.status)) + " while waiting for " + stage_);
            }
            break;
        case RDMA_CM_EVENT_REJECTED:
            if (connecting) refused(event);
            break;
        case RDMA_CM_EVENT_DISCONNECTED:
        case RDMA_CM_EVENT_DEVICE_REMOVAL:
            link_lost();
            break;
        default:  // TIMEWAIT_EXIT and what concerns multicast
            break;
    }
}

void VerbsQueuePair::address_resolved() {
    const ibv_context* through = cm_->get()->verbs;
    if (through != device_->context()) {
        failed(ConnectionEvent::kUnreachable,
               std::string("it is reached through ") +
                   (through != nullptr ? ibv_get_device_name(through->device) : "no RDMA device") +
                   ", and the device in use is " + device_->info().name);
        return;
    }
    stage_ = "a route";
    // Only now are the port and the partition of this connection known.
    const int rc = to_init(true);
    if (rc < 0 || rdma_resolve_route(cm_->get(), kResolveTimeoutMs) != 0) {
        failed(ConnectionEvent::kUnreachable, text_of(rc < 0 ? -rc : errno));
    }
}

void VerbsQueuePair::route_resolved() {
    stage_ = "the peer's answer";
    rdma_conn_param param = parameters(number(), options_, device_->max_responder_resources(),
                                       device_->max_initiator_depth(), greeting_);
    if (rdma_connect(cm_->get(), &param) != 0) {
        failed(ConnectionEvent::kUnreachable, text_of(errno));
    }
}

void VerbsQueuePair::responded(CmEvent& event) {
    std::vector<uint8_t> data;
    int rc = decode_private(event.data, &data) ? 0 : -EBADMSG;
    if (rc == 0) {
        rc = to_ready(std::min(event.responder_resources, device_->max_responder_resources()),
                      std::min(event.initiator_depth, device_->max_initiator_depth()));
    }
    if (rc == 0 && rdma_establish(cm_->get()) != 0) rc = -errno;
    if (rc < 0) {
        (void)rdma_reject(cm_->get(), nullptr, 0);  // the peer is told, if it still can be
        failed(ConnectionEvent::kUnreachable, text_of(-rc));
        return;
    }
    answered_ = true;
    established(std::move(data));
}

void VerbsQueuePair::refused(const CmEvent& event) {
    std::vector<uint8_t> data;
    if (event.status == kRefusedByPeer && decode_private(event.data, &data)) {
        failed(ConnectionEvent::kRejected,
               {reinterpret_cast<const char*>(data.data()), data.size()});
    } else if (event.status == kNobodyListens) {
        failed(ConnectionEvent::kUnreachable, "nothing listens there");
    } else if (event.status == kStaleConnection) {
        failed(ConnectionEvent::kUnreachable,
               "the peer still holds an earlier connection of this queue pair; connect again");
    } else {
        failed(ConnectionEvent::kUnreachable,
               "the connection manager refused, reason " + std::to_string(event.status));
    }
}

}  // namespace rfaas::fabric::verbs
