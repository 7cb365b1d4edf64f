// The verbs provider: RC queue pairs of libibverbs, connected by librdmacm, on InfiniBand, RoCEv2
// and Soft-RoCE. It is the plugin rfaas_verbs.so, so that nothing else needs these libraries.
//
// A connection is one rdma_cm id with an event channel of its own: one descriptor tells about one
// connection, and no thread waits for anything. The queue pair is made and moved between its states
// here rather than by rdma_create_qp(), because receives must be postable before an address is
// resolved, and because rdma_cm has no say over the timers (see to_ready()).
// Files: verbs_provider (devices, memory, registry entry) · verbs_address (text and sockaddr) ·
// verbs_connection (rdma_cm) · verbs_queue_pair (making, states, ending) · verbs_datapath (post,
// poll).
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/unique_fd.h"
#include "fabric/fabric.h"

namespace rfaas::fabric::verbs {

// The connection manager pads private data with zeros: 56 bytes of a request (RDMA_PS_TCP) and 148
// of a rejection (a reply would have 196) arrive whatever was sent. The first byte is the true
// length.
inline constexpr size_t kMaxRequestPrivate = 56 - 1;
inline constexpr size_t kMaxReplyPrivate = 148 - 1;
[[nodiscard]] std::vector<uint8_t> encode_private(const void* data, size_t bytes);
// False when what a peer sent is not such a record.
[[nodiscard]] bool decode_private(const std::vector<uint8_t>& padded, std::vector<uint8_t>* out);

// verbs_address.cc
struct Address {
    sockaddr_storage storage = {};
    [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
[[nodiscard]] int parse_address(std::string_view text, Address* out);
[[nodiscard]] std::string format_address(const sockaddr* address);
[[nodiscard]] bool is_wildcard(const sockaddr* address);
// Puts an address of the port's network interface in the place of a wildcard; -EADDRNOTAVAIL: none.
[[nodiscard]] int replace_wildcard(ibv_context* context, uint8_t port, Address* address);

struct CmEvent {
    rdma_cm_event_type type = RDMA_CM_EVENT_ADDR_ERROR;
    int status = 0;
    rdma_cm_id* id = nullptr;  // a request's new id: the reader's to adopt or to destroy
    uint8_t responder_resources = 0;
    uint8_t initiator_depth = 0;
    std::vector<uint8_t> data;  // private data with its padding
};

// An rdma_cm id and its own event channel. Shared by a connection request and its queue pair.
class CmId {
  public:
    CmId() = default;
    CmId(const CmId&) = delete;
    CmId& operator=(const CmId&) = delete;
    ~CmId();
    [[nodiscard]] static int create(std::shared_ptr<CmId>* out);
    // Takes a request's id, also on failure, and moves it to a channel of its own.
    [[nodiscard]] static int adopt(rdma_cm_id* id, std::shared_ptr<CmId>* out);
    [[nodiscard]] int next(CmEvent* out);  // 0, or -EAGAIN when there is none
    [[nodiscard]] rdma_cm_id* get() const { return id_; }
    [[nodiscard]] int fd() const { return channel_->fd; }

  private:
    [[nodiscard]] int open_channel();
    rdma_event_channel* channel_ = nullptr;
    rdma_cm_id* id_ = nullptr;
};

class VerbsDevice;
class VerbsQueuePair;

class VerbsRegion final : public MemoryRegion {
  public:
    VerbsRegion() = default;
    ~VerbsRegion() override;
    [[nodiscard]] int open(ibv_pd* pd, size_t bytes, uint32_t access);
    [[nodiscard]] uint32_t lkey() const { return mr_->lkey; }

  private:
    ibv_mr* mr_ = nullptr;
    size_t mapped_ = 0;
};

class VerbsCompletionQueue final : public CompletionQueue {
  public:
    VerbsCompletionQueue(VerbsDevice* device, uint32_t depth) : device_(device), depth_(depth) {}
    ~VerbsCompletionQueue() override;
    [[nodiscard]] int open(ibv_context* context);
    [[nodiscard]] int poll(Completion* out, int max) override;
    [[nodiscard]] int arm() override;
    [[nodiscard]] int fd() const override { return epoll_.get(); }
    void acknowledge() override;

    [[nodiscard]] ibv_cq* get() const { return cq_; }
    // For queue pairs. reserve() keeps a queue that could overrun this one from existing.
    [[nodiscard]] int reserve(uint32_t completions);
    void release(uint32_t completions) { reserved_ -= completions; }
    // Lets the connection's events wake this queue; attached once, also when used for both ways.
    [[nodiscard]] int watch(VerbsQueuePair* queue_pair, int fd);
    void unwatch(int fd);
    // Empties the device's queue: entries of a destroyed queue pair must not stay in it and take
    // room.
    void drain();

  private:
    [[nodiscard]] bool take(const ibv_wc& wc, Completion* out);
    void service_connections();
    void look_at_connections();

    VerbsDevice* device_;
    uint32_t depth_;
    uint32_t reserved_ = 0;
    ibv_comp_channel* channel_ = nullptr;
    ibv_cq* cq_ = nullptr;
    UniqueFd epoll_;  // the completion channel and the event channel of every connection
    uint64_t last_look_ = 0;
    std::deque<Completion> drained_;
};

class VerbsQueuePair final : public QueuePair {
  public:
    VerbsQueuePair(VerbsDevice* device, const QueuePairOptions& options, std::shared_ptr<CmId> cm);
    ~VerbsQueuePair() override;
    [[nodiscard]] int open();  // made and in INIT, where it takes receives

    [[nodiscard]] uint32_t number() const override { return qp_->qp_num; }
    [[nodiscard]] QueuePairState state() const override { return state_; }
    [[nodiscard]] uint32_t inline_bytes() const override { return inline_bytes_; }
    int post_send(const SendRequest& request) override;
    void ring() override;
    int post_receives(const ReceiveRequest& request, uint32_t count) override;
    [[nodiscard]] int fd() const override { return epoll_.get(); }
    ConnectionEvent next_event(std::vector<uint8_t>* data) override;
    void disconnect() override;

    // verbs_connection.cc
    [[nodiscard]] int start_connect(std::string_view text, Address* address, const void* data,
                                    size_t bytes);
    [[nodiscard]] int start_accept(const CmEvent& request, const void* data, size_t bytes);
    void progress();  // reads the connection's events; next_event() hands on what they mean

    // verbs_datapath.cc: what a completion of this queue pair says. False: nothing to tell.
    [[nodiscard]] bool completed(const ibv_wc& wc, Completion* out);

  private:
    struct Send {
        uint64_t id;
        MemoryRegion* regions[2];
        uint32_t length;
        Opcode opcode;
    };
    struct Receive {
        uint64_t id;
        MemoryRegion* region;
    };
    struct Prepared {
        ibv_send_wr wr;
        ibv_sge list[2];
        uint32_t length;
        bool copied;
    };
    // Posted with kMore: waits for ring(), or for the next one that nothing follows.
    static constexpr uint32_t kSendChain = 16;
    static constexpr uint32_t kChainedBytes = 256;
    struct Chained {
        Prepared request;
        uint8_t bytes[kChainedBytes];
    };

    [[nodiscard]] int prepare(const SendRequest& request, Prepared* out) const;
    void remember(const SendRequest& request, const Prepared& prepared);
    void chain(const SendRequest& request, const Prepared& prepared, bool more);

    [[nodiscard]] int make_ibv_queue_pair();
    [[nodiscard]] int to_init(bool resolved);
    [[nodiscard]] int to_ready(uint8_t responder_resources, uint8_t initiator_depth);
    void to_error();
    void retire_sends(uint64_t count);
    void retire_receives(uint64_t count);

    void handle(CmEvent& event);
    void address_resolved();
    void route_resolved();
    void responded(CmEvent& event);
    void refused(const CmEvent& event);
    void established(std::vector<uint8_t> data);
    void failed(ConnectionEvent event, std::string_view why);
    void link_lost();
    void push(ConnectionEvent event, std::vector<uint8_t> data);

    VerbsDevice* device_;
    QueuePairOptions options_;
    VerbsCompletionQueue* send_queue_;
    VerbsCompletionQueue* receive_queue_;
    std::shared_ptr<CmId> cm_;
    ibv_qp* qp_ = nullptr;
    uint32_t inline_bytes_ = 0;
    uint32_t tag_ = 0;  // upper half of every wr_id
    bool reserved_send_ = false;
    bool reserved_receive_ = false;
    bool passive_;
    bool answered_ = false;  // the connection got as far as both ends knowing of it
    bool lost_reported_ = false;
    QueuePairState state_ = QueuePairState::kConnecting;
    std::string target_;             // of connect(), for messages
    std::string stage_;              // what connecting waits for, for messages
    std::vector<uint8_t> greeting_;  // encoded private data of connect()

    // fd() is the epoll descriptor. The event channel alone would not do: a completion queue may
    // have read the channel before next_event() is called, and then `pending_` keeps fd() readable.
    UniqueFd epoll_, pending_, timer_;
    std::deque<std::pair<ConnectionEvent, std::vector<uint8_t>>> events_;

    uint32_t chained_ = 0;
    Chained chain_[kSendChain];
    std::vector<Send> sends_;  // rings; the counters only grow
    std::vector<Receive> receives_;
    uint64_t sends_posted_ = 0, sends_retired_ = 0;
    uint64_t receives_posted_ = 0, receives_retired_ = 0;
};

class VerbsDevice final : public Device {
  public:
    VerbsDevice(ibv_context* context, uint8_t port, DeviceInfo info);
    ~VerbsDevice() override;
    [[nodiscard]] int open();
    [[nodiscard]] const DeviceInfo& info() const override { return info_; }
    int allocate(size_t bytes, uint32_t access, std::unique_ptr<MemoryRegion>* out) override;
    int create_completion_queue(uint32_t depth, std::unique_ptr<CompletionQueue>* out) override;
    int listen(std::string_view address, int backlog, std::unique_ptr<Listener>* out) override;
    int connect(std::string_view address, const QueuePairOptions& options, const void* data,
                size_t bytes, std::unique_ptr<QueuePair>* out) override;

    [[nodiscard]] ibv_context* context() const { return context_; }
    [[nodiscard]] ibv_pd* pd() const { return pd_; }
    [[nodiscard]] uint8_t port() const { return port_; }
    [[nodiscard]] uint8_t max_responder_resources() const { return max_responder_resources_; }
    [[nodiscard]] uint8_t max_initiator_depth() const { return max_initiator_depth_; }
    [[nodiscard]] int make_queue_pair(const QueuePairOptions& options, std::shared_ptr<CmId> cm,
                                      std::unique_ptr<VerbsQueuePair>* out);

    // Queue pairs by the tag in their wr_ids. A completion may outlive its queue pair, in the
    // device's queue, and the tag of the next one differs.
    [[nodiscard]] int add(VerbsQueuePair* queue_pair, uint32_t* tag);
    void remove(uint32_t tag);
    [[nodiscard]] VerbsQueuePair* find(uint32_t tag) const {
        const uint32_t index = tag & 0xffff;
        return index < slots_.size() && slots_[index].tag == tag ? slots_[index].queue_pair
                                                                 : nullptr;
    }

  private:
    struct Slot {
        VerbsQueuePair* queue_pair = nullptr;
        uint32_t tag = 0;  // generation << 16 | index
    };
    ibv_context* context_;  // librdmacm's, of the process: never closed
    uint8_t port_;
    DeviceInfo info_;
    ibv_pd* pd_ = nullptr;
    uint8_t max_responder_resources_ = 0;
    uint8_t max_initiator_depth_ = 0;
    std::vector<Slot> slots_;
    std::vector<uint32_t> free_slots_;
};

}  // namespace rfaas::fabric::verbs
