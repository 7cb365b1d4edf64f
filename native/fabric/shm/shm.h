// The shm provider: the fabric between processes of one host, as strict as a NIC.
//
// A queue pair is a UNIX socket for control and two inbound queues in shared memory, each made by
// its receiver. A one-sided request is executed by its initiator on the peer's region, which it has
// mapped; a small write-with-immediate travels inside its descriptor and the receiver places it.
// Files: shm_memory (pages, regions, keys) · shm_handshake (sockets, connecting) · shm_provider
// (device, completion queue, registry entry) · shm_datapath (post and poll).
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "core/time.h"
#include "core/unique_fd.h"
#include "fabric/fabric.h"
#include "fabric/shm/shm_layout.h"

namespace rfaas::fabric::shm {

// A mapping of a sealed memfd.
class Pages {
  public:
    Pages() = default;
    Pages(Pages&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Pages& operator=(Pages&& other) noexcept;
    ~Pages() { unmap(); }

    // New zeroed pages; `fd` is what peers may get: sealed against resizing, and against new
    // writable mappings when `peer_writable` is false.
    [[nodiscard]] static int create(size_t bytes, bool peer_writable, Pages* pages, UniqueFd* fd);
    // A peer's pages. Refuses what could be shrunk under us or is shorter than `bytes`.
    [[nodiscard]] static int import(int fd, size_t bytes, bool writable, Pages* pages);

    [[nodiscard]] uint8_t* data() const { return data_; }
    [[nodiscard]] size_t bytes() const { return bytes_; }
    void unmap();

  private:
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

class ShmDevice;
class ShmQueuePair;

class ShmRegion final : public MemoryRegion {
  public:
    ShmRegion(ShmDevice* device, uint32_t access, Pages pages, UniqueFd fd, size_t length);
    ~ShmRegion() override;
    [[nodiscard]] uint32_t key() const { return static_cast<uint32_t>(rkey_); }
    [[nodiscard]] uint32_t access() const { return access_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    friend class ShmDevice;
    ShmDevice* device_;
    uint32_t access_;
    Pages pages_;
    UniqueFd fd_;
};

class ShmCompletionQueue final : public CompletionQueue {
  public:
    explicit ShmCompletionQueue(uint32_t depth);
    ~ShmCompletionQueue() override;
    [[nodiscard]] int open();
    [[nodiscard]] int poll(Completion* out, int max) override;
    [[nodiscard]] int arm() override;
    [[nodiscard]] int fd() const override { return epoll_.get(); }
    void acknowledge() override;

    // For queue pairs. reserve() keeps a queue that cannot hold its completions from existing.
    [[nodiscard]] int reserve(uint32_t completions);
    void release(uint32_t completions) { reserved_ -= completions; }
    void attach(ShmQueuePair* queue_pair);  // once per completion queue of the queue pair
    void detach(ShmQueuePair* queue_pair);
    void watch(ShmQueuePair* queue_pair);  // its socket can wake this queue from now on
    void unwatch(ShmQueuePair* queue_pair);
    // Its socket is full, or not any more: room in it makes fd() readable, too.
    void watch_for_room(ShmQueuePair* queue_pair, bool wanted);
    // `retires`: how many of its sends are over when this completion is taken; 0 for receives.
    void push(const Completion& completion, ShmQueuePair* queue_pair, uint64_t retires);
    void notify();  // makes fd() readable, once for each arm()

  private:
    struct Entry {
        Completion completion;
        ShmQueuePair* queue_pair;
        uint64_t retires;
    };
    void service();  // sockets and waiting requests; not on the fast path

    uint32_t depth_;
    uint32_t reserved_ = 0;
    uint32_t idle_polls_ = 0;
    bool armed_ = false;  // fd() has to become readable, and is not yet
    std::deque<Entry> ready_;
    std::vector<ShmQueuePair*> queue_pairs_;
    UniqueFd epoll_, event_, timer_;
};

class ShmQueuePair final : public QueuePair {
  public:
    ShmQueuePair(ShmDevice* device, const QueuePairOptions& options);
    ~ShmQueuePair() override;
    [[nodiscard]] int open();  // makes the inbound queue and reserves the completion queues

    [[nodiscard]] uint32_t number() const override { return number_; }
    [[nodiscard]] QueuePairState state() const override { return state_; }
    [[nodiscard]] uint32_t inline_bytes() const override { return inline_bytes_; }
    int post_send(const SendRequest& request) override;
    int post_receives(const ReceiveRequest& request, uint32_t count) override;
    void ring() override;
    [[nodiscard]] int fd() const override { return events_.get(); }
    ConnectionEvent next_event(std::vector<uint8_t>* data) override;
    void disconnect() override;

    // Handshake (shm_handshake.cc).
    [[nodiscard]] int start_connect(UniqueFd socket, const void* data, size_t bytes);
    [[nodiscard]] int start_accept(UniqueFd socket, const Message& hello, UniqueFd queue,
                                   UniqueFd keys, const void* data, size_t bytes);
    [[nodiscard]] int announce(const ShmRegion& region);
    void withdraw(uint32_t rkey);
    void service_socket();
    [[nodiscard]] int socket() const { return socket_.get(); }

    // Data path (shm_datapath.cc), called by the completion queues.
    [[nodiscard]] int consume(Completion* out, int max);
    [[nodiscard]] bool has_waiting() const { return !waiting_.empty(); }
    void progress();
    void retire(uint64_t sends) { retired_ = sends; }
    void set_sleeping(bool sleeping);
    // Nanoseconds of CLOCK_MONOTONIC at which progress() must run at the latest; 0: not needed.
    [[nodiscard]] uint64_t deadline() const;
    void finish_if_drained();
    [[nodiscard]] bool receives_into(const ShmCompletionQueue* queue) const {
        return receive_queue_ == queue;
    }

  private:
    friend class ShmDevice;
    struct Import {
        uint32_t rkey = 0;
        uint32_t access = 0;
        uint64_t address = 0;
        uint64_t length = 0;
        Pages pages;
    };
    struct Waiting {  // a request that cannot run yet, with its inline bytes
        SendRequest request;
        uint64_t sends = 0;  // value of posted_ when this request was posted
        uint32_t sent_bytes = 0;
        std::vector<uint8_t> inline_bytes;
    };
    struct Placed {  // an inline write that the peer has not taken yet, and bounce bytes in use
        uint64_t address = 0;
        uint32_t length = 0;
        uint64_t bounce_end = 0;
    };
    enum class Outcome { kDone, kWait, kNotReady, kFailed };

    [[nodiscard]] int connected(const Message& message, UniqueFd queue, UniqueFd keys);
    [[nodiscard]] int send_message(const Message& message, const int* fds, int fd_count);
    void handle_message(const Message& message, std::vector<UniqueFd> fds);
    void establish(std::vector<uint8_t> data);
    void flush_announcements();
    void peer_gone();
    void enter_error();
    void flush();

    [[nodiscard]] Outcome execute(const SendRequest& request, uint64_t sends, uint32_t* sent_bytes);
    [[nodiscard]] Outcome execute_write_imm(const SendRequest& request, uint32_t length);
    [[nodiscard]] Outcome execute_one_sided(const SendRequest& request, uint32_t length);
    [[nodiscard]] Outcome execute_send(const SendRequest& request, uint32_t length,
                                       uint32_t* sent_bytes);
    [[nodiscard]] Outcome resolve(uint64_t rkey, uint64_t address, uint32_t length, uint32_t access,
                                  uint8_t** out);
    [[nodiscard]] bool refresh_consumed();
    [[nodiscard]] bool receive_available();
    [[nodiscard]] bool overlaps_placed(uint64_t address, uint32_t length);
    [[nodiscard]] Descriptor* next_descriptor();
    void note_placed(uint64_t address, uint32_t length);
    void publish(Descriptor* descriptor, uint32_t tag, uint8_t send_flags = 0);
    void wake_peer();
    void fail(const SendRequest& request, uint64_t sends, Status status);
    void complete(const SendRequest& request, uint64_t sends, uint32_t length);
    [[nodiscard]] bool accept_descriptor(const Descriptor& descriptor, uint32_t tag,
                                         Completion* out, bool* completes);
    void broken();

    ShmDevice* device_;
    ShmCompletionQueue* send_queue_;
    ShmCompletionQueue* receive_queue_;
    uint32_t number_;
    uint32_t send_depth_;
    uint32_t receive_depth_;
    uint32_t inline_bytes_;
    uint8_t rnr_retry_;
    QueuePairState state_ = QueuePairState::kConnecting;
    bool attached_ = false;
    bool peer_gone_ = false;
    bool flushed_ = false;
    bool established_pending_ = false;
    bool disconnect_reported_ = false;
    ConnectionEvent refused_ = ConnectionEvent::kNone;
    std::vector<uint8_t> event_data_;
    UniqueFd socket_, events_, inbound_fd_;
    std::deque<std::pair<Message, int>> announcements_;  // waiting for room in the socket
    bool wants_room_ = false;
    Status failure_ = Status::kSuccess;

    // Receiving.
    Pages inbound_;
    QueueShape inbound_shape_;
    QueueControl* inbound_control_ = nullptr;
    Descriptor* inbound_ring_ = nullptr;
    uint64_t taken_ = 0;
    std::vector<ReceiveRequest> receives_;  // ring of inbound_shape_.receive_depth
    uint64_t receives_posted_ = 0;
    uint64_t receives_taken_ = 0;
    uint32_t assembled_ = 0;  // bytes of the send that is arriving in fragments

    // Sending.
    Pages outbound_;
    QueueShape outbound_shape_;
    QueueControl* outbound_control_ = nullptr;
    Descriptor* outbound_ring_ = nullptr;
    Pages peer_keys_;
    uint64_t published_ = 0;
    bool unrung_ = false;  // published, and nobody has looked for sure whether the peer sleeps
    uint64_t peer_consumed_ = 0;  // last seen, checked
    uint64_t peer_receives_ = 0;  // last seen, checked
    uint64_t receives_used_ = 0;
    uint64_t bounce_head_ = 0, bounce_tail_ = 0;
    std::vector<Placed> placed_;  // by descriptor position
    std::vector<Import> imports_;
    uint64_t posted_ = 0, retired_ = 0;
    std::deque<Waiting> waiting_;
    uint64_t waiting_since_ = 0;
    bool waiting_for_receive_ = false;
};

class ShmDevice final : public Device {
  public:
    ShmDevice();
    ~ShmDevice() override = default;
    [[nodiscard]] int open();
    [[nodiscard]] const DeviceInfo& info() const override { return info_; }
    int allocate(size_t bytes, uint32_t access, std::unique_ptr<MemoryRegion>* out) override;
    int create_completion_queue(uint32_t depth, std::unique_ptr<CompletionQueue>* out) override;
    int listen(std::string_view address, int backlog, std::unique_ptr<Listener>* out) override;
    int connect(std::string_view address, const QueuePairOptions& options, const void* data,
                size_t bytes, std::unique_ptr<QueuePair>* out) override;

    [[nodiscard]] int make_queue_pair(const QueuePairOptions& options,
                                      std::unique_ptr<ShmQueuePair>* out);
    // The region of this device that `rkey` names now, or null.
    [[nodiscard]] ShmRegion* region(uint32_t rkey) const {
        ShmRegion* found = regions_[rkey & kRegionIndexMask];
        return found != nullptr && found->key() == rkey ? found : nullptr;
    }
    void remove(ShmRegion* region);
    [[nodiscard]] int keys_fd() const { return keys_fd_.get(); }
    [[nodiscard]] const std::vector<ShmRegion*>& regions() const { return regions_; }
    void add(ShmQueuePair* queue_pair) { queue_pairs_.push_back(queue_pair); }
    void remove(ShmQueuePair* queue_pair);

  private:
    DeviceInfo info_;
    Pages keys_;
    UniqueFd keys_fd_;
    std::vector<ShmRegion*> regions_;
    std::vector<ShmQueuePair*> queue_pairs_;
    uint32_t next_index_ = 0;
};

[[nodiscard]] int make_listener(ShmDevice* device, std::string_view path, int backlog,
                                std::unique_ptr<Listener>* out);

[[nodiscard]] DeviceInfo device_info();

}  // namespace rfaas::fabric::shm

namespace rfaas::fabric {
[[nodiscard]] Provider* shm_provider();
}
