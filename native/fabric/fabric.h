// The fabric seam: what a transport must offer to carry rfaas. Everything above this file is the
// same on an InfiniBand NIC, on Soft-RoCE and between two processes of one laptop.
//
// The nouns and the rules are those of libibverbs, so that the verbs provider is thin and the shm
// provider is honest:
//
//  Ordering     Requests of one queue pair execute in the order they were posted. What one request
//               wrote is visible to the peer before any later request of that queue pair is.
//  Receives     send, send-with-immediate and write-with-immediate each consume one posted receive
//               of the peer and complete there. A peer with none posted is "not ready": the request
//               waits, in order, and fails with kRnrRetryExceeded when its retries are used up
//               (rnr_retry 7 waits for ever).
//  Completions  Only signalled requests complete, in order; every receive completes. A request that
//               fails always completes, signalled or not.
//  Back-pressure  A full queue is -EAGAIN and nothing of that request was posted.
//  Errors       After the first failed request, or when the peer goes away, the queue pair is in
//               kError: all that is outstanding completes as kFlushed, and new posts are refused
//               with -ENOTCONN.
//  Memory       Bytes of a posted request belong to the fabric until it completes (for an
//               unsignalled one: until a later signalled one does). Inline bytes are copied before
//               the post returns.
//  Waiting      arm(), then poll once more: only a completion that arrives after arm() is promised
//               to make fd() readable.
//  Threads      A device and all that belongs to it is used by one thread at a time.
//  Lifetime     Destroy queue pairs before completion queues and regions, these before the device.
//
// Functions return 0 (or a count) or a negative errno, and never throw.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rfaas::fabric {

enum class Opcode : uint8_t {
    kWrite = 0,
    kWriteImm = 1,
    kRead = 2,
    kSend = 3,
    kSendImm = 4,
    kFetchAdd = 5,     // remote u64 += compare_add; the old value lands in segment 0 (8 bytes)
    kCompareSwap = 6,  // remote u64 == compare_add ? swap : unchanged; old value in segment 0
    kReceive = 7,      // completion of a receive taken by kSend or kSendImm
    kReceiveWrite = 8  // completion of a receive taken by kWriteImm
};

enum class Status : uint8_t {
    kSuccess = 0,
    kLocalProtection = 1,  // a segment lies outside its region
    kLocalLength = 2,      // a message did not fit the posted receive
    kRemoteAccess = 3,     // wrong rkey, out of bounds, or the region does not allow it
    kRemoteInvalid = 4,    // the peer could not take the request (for example, it was too long)
    kRnrRetryExceeded = 5,
    kTransportRetryExceeded = 6,  // the peer is gone
    kFlushed = 7,
    kFatal = 8
};

enum Access : uint32_t {  // local reads and writes are always allowed
    kRemoteWrite = 1,
    kRemoteRead = 2,
    kRemoteAtomic = 4
};

// kMore: others follow at once; the request may be kept back until ring().
// kQuiet: it is sent, and a peer that sleeps is woken. But one that lies down in that very moment
// may not hear of it before ring(): to be sure takes a barrier, which costs a third of a message.
enum SendFlags : uint8_t { kSignaled = 1, kInline = 2, kFence = 4, kMore = 8, kQuiet = 16 };

struct RemoteKey {  // how a peer names a region; also its wire form (little-endian)
    uint64_t address = 0;
    uint64_t length = 0;
    uint64_t rkey = 0;
};
static_assert(sizeof(RemoteKey) == 24);

struct DeviceInfo {
    std::string provider;  // "shm", "verbs"
    std::string name;      // "rxe0"
    bool atomics = false;
    uint32_t max_inline_bytes = 0;
    uint32_t max_send_depth = 0;
    uint32_t max_receive_depth = 0;
    uint32_t max_completion_depth = 0;
    uint64_t max_message_bytes = 0;
    uint32_t max_request_private_data = 0;  // bytes that connect() can carry
    uint32_t max_reply_private_data = 0;    // bytes that accept() and reject() can carry
};

class MemoryRegion {
  public:
    virtual ~MemoryRegion() = default;  // the caller has made sure that in_flight() is 0
    MemoryRegion(const MemoryRegion&) = delete;
    MemoryRegion& operator=(const MemoryRegion&) = delete;

    [[nodiscard]] uint8_t* data() const { return data_; }
    [[nodiscard]] size_t length() const { return length_; }
    [[nodiscard]] RemoteKey remote_key() const {
        return {reinterpret_cast<uint64_t>(data_), length_, rkey_};
    }
    // Requests and receives that may still touch the bytes. Kept by the queue pairs.
    [[nodiscard]] uint32_t in_flight() const { return in_flight_; }
    void pin() { ++in_flight_; }
    void unpin() { --in_flight_; }

    [[nodiscard]] bool contains(const void* address, size_t bytes) const {
        const auto offset =
            reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(data_);
        return offset <= length_ && bytes <= length_ - offset;
    }

  protected:
    MemoryRegion() = default;
    uint8_t* data_ = nullptr;
    size_t length_ = 0;
    uint64_t rkey_ = 0;
    uint32_t in_flight_ = 0;
};

struct Segment {
    void* address = nullptr;
    uint32_t length = 0;
    MemoryRegion* region = nullptr;  // may be null for inline bytes only
};

struct SendRequest {
    uint64_t id = 0;
    Opcode opcode = Opcode::kSend;
    uint8_t flags = 0;
    uint8_t segment_count = 0;  // 0..2; gathered in order (scattered, for kRead)
    uint32_t immediate = 0;     // host order; all 32 bits are the caller's
    Segment segments[2];
    uint64_t remote_address = 0;
    uint64_t rkey = 0;
    uint64_t compare_add = 0;
    uint64_t swap = 0;
};

struct ReceiveRequest {
    uint64_t id = 0;
    Segment segment;  // length 0 with a null region: takes immediates and empty sends only
};

struct Completion {
    uint64_t id = 0;
    uint32_t queue_pair = 0;  // QueuePair::number()
    uint32_t byte_length = 0;
    uint32_t immediate = 0;
    Status status = Status::kSuccess;
    Opcode opcode = Opcode::kSend;
    bool has_immediate = false;
    uint8_t reserved = 0;
};
static_assert(sizeof(Completion) == 24);

class CompletionQueue {
  public:
    virtual ~CompletionQueue() = default;  // its queue pairs are gone
    // Moves up to `max` completions to `out`; makes the progress that software transports need.
    [[nodiscard]] virtual int poll(Completion* out, int max) = 0;
    // Asks for fd() to become readable at the next completion. Poll once more afterwards.
    [[nodiscard]] virtual int arm() = 0;
    // Readable (POLLIN) after a completion that followed arm(), or when a peer went away.
    [[nodiscard]] virtual int fd() const = 0;
    // Makes fd() quiet again after it was readable. Does not re-arm.
    virtual void acknowledge() = 0;
};

enum class QueuePairState : uint8_t { kConnecting = 0, kConnected = 1, kError = 2, kClosed = 3 };

struct QueuePairOptions {
    CompletionQueue* send_queue = nullptr;
    CompletionQueue* receive_queue = nullptr;  // may be the same
    uint32_t send_depth = 64;
    uint32_t receive_depth = 64;
    uint32_t inline_bytes = 0;  // wanted; inline_bytes() tells what was granted (at least this)
    uint8_t rnr_retry = 7;      // 0..6 tries, 7 for ever
};

enum class ConnectionEvent : uint8_t {
    kNone = 0,
    kEstablished = 1,  // data: the private data of accept()
    kRejected = 2,     // data: the private data of reject()
    kUnreachable = 3,  // data: why, as text
    kDisconnected = 4  // the peer closed or died; outstanding work is flushed
};

class QueuePair {
  public:
    virtual ~QueuePair() = default;  // disconnects; unpins what was outstanding
    [[nodiscard]] virtual uint32_t number() const = 0;
    [[nodiscard]] virtual QueuePairState state() const = 0;
    [[nodiscard]] virtual uint32_t inline_bytes() const = 0;
    // 0, or a negative errno: -EAGAIN queue full, -ENOTCONN not connected, -EINVAL bad request,
    // -EMSGSIZE inline too long. Receives may be posted before the connection is established.
    [[nodiscard]] virtual int post_send(const SendRequest& request) = 0;
    // `count` receives that are the same, announced to the device or the peer once.
    [[nodiscard]] virtual int post_receives(const ReceiveRequest& request, uint32_t count) = 0;
    [[nodiscard]] int post_receive(const ReceiveRequest& request) {
        return post_receives(request, 1);
    }
    // Behind the last of several requests that were posted with kMore or kQuiet.
    virtual void ring() = 0;
    // Readable when next_event() has something.
    [[nodiscard]] virtual int fd() const = 0;
    [[nodiscard]] virtual ConnectionEvent next_event(std::vector<uint8_t>* data) = 0;
    virtual void disconnect() = 0;  // idempotent; the peer sees kDisconnected
};

class ConnectionRequest {  // dropping one unanswered rejects it
  public:
    virtual ~ConnectionRequest() = default;
    [[nodiscard]] virtual const std::vector<uint8_t>& private_data() const = 0;
    [[nodiscard]] virtual const std::string& peer() const = 0;  // for logs: address or pid and uid
    // The queue pair exists, unconnected, so that receives can be posted before the peer may send.
    [[nodiscard]] virtual int prepare(const QueuePairOptions& options,
                                      std::unique_ptr<QueuePair>* out) = 0;
    // Call once, after prepare(), with the queue pair that it made.
    [[nodiscard]] virtual int accept(QueuePair* queue_pair, const void* data, size_t bytes) = 0;
    virtual void reject(const void* data, size_t bytes) = 0;
};

class Listener {
  public:
    virtual ~Listener() = default;
    [[nodiscard]] virtual const std::string& address() const = 0;  // as bound; connect() takes it
    [[nodiscard]] virtual int fd() const = 0;  // readable when next() may have something
    // 0 and a request, -EAGAIN when there is none. Garbage and timed-out peers are dropped here.
    [[nodiscard]] virtual int next(std::unique_ptr<ConnectionRequest>* out) = 0;
    // How many were dropped so far.
    [[nodiscard]] uint64_t dropped() const { return dropped_; }

  protected:
    uint64_t dropped_ = 0;
};

class Device {
  public:
    virtual ~Device() = default;
    [[nodiscard]] virtual const DeviceInfo& info() const = 0;
    // Page-aligned zeroed pages, registered. Allocation is the only way to get a region: the shm
    // provider cannot share pages that it did not make.
    [[nodiscard]] virtual int allocate(size_t bytes, uint32_t access,
                                       std::unique_ptr<MemoryRegion>* out) = 0;
    [[nodiscard]] virtual int create_completion_queue(uint32_t depth,
                                                      std::unique_ptr<CompletionQueue>* out) = 0;
    // shm: a path for the socket. verbs: "IP:PORT" or "[IP6]:PORT", port 0 for any free one.
    [[nodiscard]] virtual int listen(std::string_view address, int backlog,
                                     std::unique_ptr<Listener>* out) = 0;
    // Starts to connect; the queue pair is kConnecting until its event says more.
    [[nodiscard]] virtual int connect(std::string_view address, const QueuePairOptions& options,
                                      const void* data, size_t bytes,
                                      std::unique_ptr<QueuePair>* out) = 0;
};

class Provider {  // static lifetime; thread-safe
  public:
    virtual ~Provider() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;
    // The devices of this host, or a negative errno with the reason and what to do about it.
    [[nodiscard]] virtual int devices(std::vector<DeviceInfo>* out, std::string* reason) = 0;
    // `name` empty: the first device that is usable.
    [[nodiscard]] virtual int open(std::string_view name, std::unique_ptr<Device>* out,
                                   std::string* reason) = 0;
};

// A plugin exports this one C symbol; `version` guards against a stale file beside a newer addon.
inline constexpr uint32_t kProviderAbi = 3;
inline constexpr char kProviderEntry[] = "rfaas_fabric_provider";
using ProviderEntry = Provider* (*)(uint32_t abi);

struct ProviderStatus {
    std::string name;
    bool available = false;
    std::string reason;  // why not, and what to install or change
    std::vector<DeviceInfo> devices;
};

// registry.cc: shm is linked in, verbs is dlopen()ed from `rfaas_verbs.so` beside the binary that
// contains this code. Thread-safe.
[[nodiscard]] std::vector<ProviderStatus> providers();
[[nodiscard]] int open_device(std::string_view provider, std::string_view name,
                              std::unique_ptr<Device>* out, std::string* reason);

}  // namespace rfaas::fabric
