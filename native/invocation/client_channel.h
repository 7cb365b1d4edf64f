// The client's end of the invocation protocol (include/rfaas/wire.h) towards all workers of one
// executor: requests out, replies in, one completion queue for all.
//
// The caller owns the slots: it names a free one per call and may name it again when the outcome of
// that call has been delivered. A slot whose caller stopped waiting stays taken until the reply or
// the end of the worker is in; that is what makes late replies harmless.
//
// When a connection breaks, kWorkerDown is delivered (unless connect() comes first) and the calls
// that the worker still owes a reply to are in doubt: it may live. connect() to the same worker
// asks it what became of them, and abandon() settles them when it is known to have ended.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "core/spin.h"
#include "fabric/fabric.h"
#include "rfaas/wire.h"

namespace rfaas::invocation {

struct CallRequest {
    uint32_t worker = 0;
    uint32_t slot = 0;
    uint32_t function = 0;
    uint32_t input_region = 0;  // index of add_region()
    uint32_t input_offset = 0;
    uint32_t input_length = 0;
    uint32_t output_region = 0;
    uint32_t output_offset = 0;
    uint32_t output_capacity = 0;
    uint32_t timeout_us = 0;  // 0: none
};

inline constexpr uint32_t kWorkerDown = 0xffff;  // a slot that stands for the connection itself

struct CallOutcome {
    uint32_t worker = 0;
    uint32_t slot = 0;    // kWorkerDown: this worker's connection ended
    uint32_t status = 0;  // wire::CallStatus
    uint32_t length = 0;  // of the result, or of the error's text
};

enum class ConnectProgress { kPending, kConnected, kRefused, kUnreachable };

class ClientChannel {
  public:
    struct Limits {
        uint32_t workers = 1;
        uint32_t slots = 1;  // per worker
    };

    ClientChannel(fabric::Device* device, Limits limits) : device_(device), limits_(limits) {}
    ~ClientChannel();
    [[nodiscard]] int open();

    // Starts to connect worker `index`, anew if its connection broke. A ticket that is not the last
    // one's is another process's: the calls in doubt may have run and end with kWorkerLost. Then
    // call connect_step() until it is not kPending; connect_fd() is readable when that is worth
    // while.
    [[nodiscard]] int connect(uint32_t index, std::string_view address,
                              const uint8_t (&ticket)[wire::kTicketBytes]);
    [[nodiscard]] ConnectProgress connect_step(uint32_t index, std::string* reason);
    [[nodiscard]] int connect_fd(uint32_t index) const { return workers_[index].pair->fd(); }
    [[nodiscard]] const wire::Welcome& welcome(uint32_t index) const {
        return workers_[index].welcome;
    }
    [[nodiscard]] bool connected(uint32_t index) const { return workers_[index].connected; }
    void disconnect(uint32_t index);
    // The worker has ended. Of the calls that it owes a reply to, those with ids up to
    // `last_started` may have run and end with kWorkerLost, the others with kNotReceived.
    void abandon(uint32_t index, uint64_t last_started);
    static constexpr uint64_t kAnyStarted = UINT64_MAX;

    // Makes a region known to the workers; -ENOSPC when all indices are taken. The region must
    // outlive its entry.
    [[nodiscard]] int add_region(fabric::MemoryRegion* region);
    void remove_region(uint32_t index);

    // 0, or -ENOTCONN (worker not there), -EBUSY (slot taken), -EAGAIN (send queue full),
    // -EMSGSIZE (payload too long), -EINVAL (outside of a region).
    [[nodiscard]] int submit(const CallRequest& request) { return submit(request, 0); }
    // Many calls, for less than one by one. What submit() would say of one becomes its outcome:
    // kNotReceived, or kBadRequest if it can never be sent.
    void submit(const CallRequest* requests, uint32_t count);
    // Delivers outcomes; makes progress. A count, or a negative errno of the fabric.
    [[nodiscard]] int poll(CallOutcome* out, int max);
    // submit(), then finish().
    [[nodiscard]] int call(const CallRequest& request, Spinner* spinner, CallOutcome* out) {
        const int rc = submit(request);
        return rc < 0 ? rc : finish(request.worker, request.slot, spinner, out);
    }
    // Spins until the outcome of a call in flight is in. Outcomes of other calls wait for poll().
    // When the spinner's time is over first: status kDeadline, and the slot stays taken (see
    // above). -ECONNRESET: the connection broke, and the call is in doubt.
    [[nodiscard]] int finish(uint32_t worker, uint32_t slot, Spinner* spinner, CallOutcome* out);
    // For a call that is waited for elsewhere: looks so many times whether its outcome is in.
    [[nodiscard]] bool look(uint32_t worker, uint32_t slot, uint32_t times, CallOutcome* out);

    [[nodiscard]] uint32_t in_flight() const { return in_flight_; }
    [[nodiscard]] bool has_ready() const { return !ready_.empty(); }
    [[nodiscard]] std::string_view error_text(uint32_t worker, uint32_t slot,
                                              uint32_t length) const;

    [[nodiscard]] int arm() { return queue_->arm(); }
    [[nodiscard]] int fd() const { return queue_->fd(); }
    void acknowledge() { queue_->acknowledge(); }

  private:
    struct Worker {
        std::unique_ptr<fabric::QueuePair> pair;
        uint8_t ticket[wire::kTicketBytes] = {};
        wire::Welcome welcome;
        // What all sends to this connection's slots, and all of its receives, have in common.
        fabric::SendRequest request;
        fabric::ReceiveRequest receive;
        uint32_t inline_bytes = 0;
        uint64_t slot_stride = 0;
        uint32_t unsignaled = 0;      // sends since the last that was signalled
        uint32_t receives_taken = 0;  // since some were posted
        uint32_t connections = 0;  // tells completions of this connection from those of older ones
        bool connected = false;
        std::vector<uint64_t> owed;  // by slot: id of the request that a reply is owed to, or 0
    };

    [[nodiscard]] static uint64_t receive_id(uint32_t index, const Worker& worker) {
        return uint64_t{worker.connections} << 32 | index;
    }
    [[nodiscard]] bool settle_doubts(uint32_t index);
    [[nodiscard]] int submit(const CallRequest& request, uint8_t flags);
    [[nodiscard]] int send_header(uint32_t index, uint32_t slot, const wire::RequestHeader& header,
                                  uint32_t payload_length, uint8_t flags);
    [[nodiscard]] int post(Worker& worker, fabric::SendRequest& request);
    [[nodiscard]] wire::Region* table(uint32_t worker) const {
        return reinterpret_cast<wire::Region*>(tables_->data()) + worker * wire::kMaxRegions;
    }
    void set_region(uint32_t index, const wire::Region& region);
    [[nodiscard]] int write_table(uint32_t worker, uint32_t first, uint32_t count);
    [[nodiscard]] bool take(const fabric::Completion& completion, CallOutcome* out);
    [[nodiscard]] int take_next(uint32_t worker, uint32_t slot, CallOutcome* out);
    void lose(uint32_t index);

    fabric::Device* device_;
    Limits limits_;
    std::unique_ptr<fabric::CompletionQueue> queue_;
    // Per worker wire::Region[kMaxRegions]: what it was sent, or is being sent right now.
    std::unique_ptr<fabric::MemoryRegion> tables_;
    std::unique_ptr<fabric::MemoryRegion> control_;  // texts of errors, per worker and slot
    std::vector<fabric::MemoryRegion*> regions_;
    std::vector<Worker> workers_;
    std::array<fabric::Completion, 16> polled_;  // of poll(), which would have to zero its own
    std::deque<CallOutcome> ready_;
    uint64_t session_ = 0;
    uint64_t next_request_id_ = 1;
    uint32_t in_flight_ = 0;
};

}  // namespace rfaas::invocation
