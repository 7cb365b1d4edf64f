// The worker's end of the invocation protocol (include/rfaas/wire.h): it listens, lets in the one
// client that has the ticket, takes requests from its slots and answers them.
//
// A slot outlives the connection: its call goes on, and its answer waits for the client to come
// back and inquire. A client of another session gets fresh slots, once no call of the last one
// runs.
//
// The id of the request that next() returned last stands in a file, if somebody has asked for it
// (`started_fd`, 64 bits): who sees the worker end without a word knows by it what has not run.
//
// Everything that a request says comes from the client and is checked on a copy. What a client can
// break that way is its own connection.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/fabric.h"
#include "invocation/call_stats.h"
#include "rfaas/wire.h"

namespace rfaas::invocation {

struct WorkerOptions {
    std::string provider;
    std::string device;   // empty: the first usable one
    std::string address;  // to listen on
    uint8_t ticket[wire::kTicketBytes] = {};
    uint32_t slots = 8;
    uint32_t payload_bytes = 1 << 20;
    uint32_t output_bytes = 1 << 20;
    uint32_t function_count = 0;
    int started_fd = -1;  // a file of at least 8 bytes, or -1; the channel takes it over
};

struct Call {
    uint32_t slot = 0;
    uint32_t function = 0;
    const uint8_t* input = nullptr;
    uint32_t input_length = 0;
    uint8_t* output = nullptr;
    uint32_t output_capacity = 0;
    uint64_t request_id = 0;
    uint64_t arrived_ns = 0;   // CLOCK_MONOTONIC, some milliseconds early for long deadlines
    uint64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0: none
};

class WorkerEvents {  // called from next(), arm() and serve_connections()
  public:
    virtual ~WorkerEvents() = default;
    virtual void connected(const std::string& peer) = 0;
    virtual void disconnected() = 0;
    virtual void refused(const std::string& peer, std::string_view why) = 0;
    // A line for the executor manager, as it is.
    virtual void served(const std::string& line) = 0;
};

class WorkerChannel {
  public:
    explicit WorkerChannel(WorkerEvents* events) : events_(events) {}
    ~WorkerChannel();
    [[nodiscard]] int open(const WorkerOptions& options, std::string* reason);
    [[nodiscard]] const std::string& address() const { return listener_->address(); }

    // The next call, if it arrives within `budget_ns` (0: look once).
    // 1: `call` is set and must be answered once. 0: none. Negative: the fabric failed.
    [[nodiscard]] int next(Call* call, uint64_t budget_ns);
    // The result is in the call's output buffer. From any order of calls; not from other threads.
    void reply(uint32_t slot, uint32_t length);
    void fail(uint32_t slot, wire::CallStatus status, std::string_view text);
    // fail() by a worker that ends now: its client sends nothing more. The other calls that have
    // started end with kWorkerLost and no text.
    void fail_last(uint32_t slot, wire::CallStatus status, std::string_view text);
    // From now on next() answers every request with `reason`, kLeaseRevoked or kLeaseEnded, and
    // returns none. Calls that it has returned go on.
    void refuse(wire::CallStatus reason);
    // The same for a call that next() has returned and nobody has started.
    void take_back(uint32_t slot);
    // Waits until all answers have reached the client, 2 s at most: for a process about to exit.
    void settle();

    // Sleeping: arm(), then next() once more, then wait for fd(), then acknowledge(). fd() is also
    // readable for new and ended connections.
    [[nodiscard]] int arm();
    [[nodiscard]] int fd() const { return epoll_; }
    void acknowledge();

    [[nodiscard]] bool has_client() const { return established_; }
    [[nodiscard]] uint32_t slots() const { return options_.slots; }
    [[nodiscard]] fabric::MemoryRegion* input_region() const { return inputs_.get(); }
    [[nodiscard]] fabric::MemoryRegion* output_region() const { return outputs_.get(); }
    [[nodiscard]] size_t input_stride() const { return input_stride_; }
    [[nodiscard]] size_t output_stride() const { return output_stride_; }

  private:
    enum class SlotState : uint8_t {
        kAnswered,  // or never used; the answer stays for an inquiry
        kRunning,
        kDetached  // running; its client has lost the connection and not inquired since
    };
    struct Slot {
        uint64_t request_id = 0;  // of the last request
        uint64_t output_address = 0;
        uint64_t output_rkey = 0;
        uint32_t output_capacity = 0;
        uint32_t immediate = 0;  // of the answer
        uint32_t length = 0;     // of the result, or of the error's text
        SlotState state = SlotState::kAnswered;
    };

    [[nodiscard]] int map_started();
    void serve_connections();
    void hear_client();
    void admit(std::unique_ptr<fabric::ConnectionRequest> request);
    void drop_client();
    [[nodiscard]] bool accept_request(const fabric::Completion& completion, Call* call);
    [[nodiscard]] bool receive_again();
    void take_inquiry(uint32_t slot);
    void answer(uint32_t slot, uint32_t immediate, uint32_t length);
    void send_answer(uint32_t slot);
    void aim_text(uint32_t slot, uint32_t length, fabric::SendRequest* request);
    void fail_with(uint32_t slot, uint32_t immediate, std::string_view text);
    void post(fabric::SendRequest& request);
    void ring();
    [[nodiscard]] bool drain();
    void tell(uint64_t now_ns);

    WorkerEvents* events_;
    WorkerOptions options_;
    std::unique_ptr<fabric::Device> device_;
    std::unique_ptr<fabric::CompletionQueue> queue_;
    std::unique_ptr<fabric::MemoryRegion> inputs_, outputs_, texts_, table_;
    std::unique_ptr<fabric::Listener> listener_;
    std::unique_ptr<fabric::QueuePair> pair_;
    bool established_ = false;
    uint64_t session_ = 0;  // whose slots these are; 0: nobody's yet
    int epoll_ = -1;
    CallStats stats_;
    size_t input_stride_ = 0, output_stride_ = 0;
    std::vector<Slot> slots_;
    std::deque<fabric::Completion> arrived_;  // polled while something else was waited for
    uint32_t callable_ = 0;  // functions that may be called; none once requests are refused
    wire::CallStatus refusal_ = wire::CallStatus::kOk;
    fabric::SendRequest answer_;  // the last one: a new one would have to be zeroed
    uint32_t inline_bytes_ = 0;
    bool unrung_ = false;          // answers were sent with kQuiet
    uint32_t unsignaled_ = 0;      // sends since the last that was signalled
    uint32_t receives_taken_ = 0;  // since some were posted
    uint32_t idle_looks_ = 0;
    uint64_t dropped_ = 0;  // of listener_->dropped(), told already
    std::atomic<uint64_t> unheeded_{0};
    std::atomic<uint64_t>* started_ = &unheeded_;  // the last request, for who sees the worker end
};

}  // namespace rfaas::invocation
