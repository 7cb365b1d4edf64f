// One side of a fabric connection: a region that the peer writes to, a queue pair, and receives to
// spare. A message is one write-with-immediate, whose immediate is the slot that it was written to.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/options.h"
#include "fabric/fabric.h"

namespace rfaas::bench {

class Endpoint {
  public:
    explicit Endpoint(const Options& options);

    // The client's side: returns when connected.
    void connect(const std::string& address);
    // The server's side: `listening` gets the address; returns when a client is connected.
    template <typename Listening>
    void accept(Listening listening);

    // Writes slot `slot` of what we send to slot `slot` of the peer.
    void send(uint32_t slot) { send(slot, 0); }
    // The same for all of these.
    void send(const uint32_t* slots, int count);
    // Spins until at least one message is there; slots of all that came, at most `max`.
    [[nodiscard]] int receive(uint32_t* slots, int max);
    // What slot `slot` received becomes what it sends.
    void echo(uint32_t slot);
    // Returns when the peer has left.
    void await_end();

  private:
    void send(uint32_t slot, uint8_t flags);
    [[nodiscard]] fabric::QueuePairOptions queue_pair_options() const;
    std::vector<uint8_t> await_event(fabric::ConnectionEvent wanted);
    std::unique_ptr<fabric::ConnectionRequest> await_request(fabric::Listener& listener);
    void prepare(fabric::ConnectionRequest& request);
    void post_receives();
    void take_peer(const std::vector<uint8_t>& data);
    [[nodiscard]] int poll(uint32_t* slots, int max);
    [[nodiscard]] uint8_t* landing(uint32_t slot) const { return region_->data() + slot * stride_; }
    [[nodiscard]] uint8_t* outgoing(uint32_t slot) const {
        return region_->data() + (slots_ + slot) * stride_;
    }

    const Options& options_;
    const uint32_t slots_;
    const uint32_t queue_depth_;  // of sends and of receives: more than can be in flight
    const size_t stride_;
    std::unique_ptr<fabric::Device> device_;
    std::unique_ptr<fabric::CompletionQueue> queue_;
    std::unique_ptr<fabric::MemoryRegion> region_;
    std::unique_ptr<fabric::QueuePair> pair_;
    fabric::RemoteKey peer_;
    uint32_t inline_bytes_ = 0;
    uint64_t sent_ = 0;
    uint32_t receives_taken_ = 0;  // since some were posted
    // Receives seen while a send waited for room.
    std::vector<uint32_t> early_;
};

template <typename Listening>
void Endpoint::accept(Listening listening) {
    std::unique_ptr<fabric::Listener> listener;
    check(device_->listen(options_.address, 1, &listener), "listen");
    listening(listener->address());
    const auto request = await_request(*listener);
    prepare(*request);
}

}  // namespace rfaas::bench
