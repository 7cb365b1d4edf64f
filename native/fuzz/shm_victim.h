// The provider's side of the shm targets, and an account of what it posted: every receive and every
// signalled send completes once, and what completes was posted.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "fabric/fabric.h"
#include "fabric/shm/shm.h"
#include "fuzz/script.h"

namespace rfaas::fuzz {

struct Victim {
    static constexpr size_t kBytes = 128 * 1024;
    static constexpr uint32_t kDepth = 16;

    std::unique_ptr<fabric::Device> device;
    std::unique_ptr<fabric::CompletionQueue> queue;
    std::unique_ptr<fabric::MemoryRegion> open;      // a peer may do everything with it
    std::unique_ptr<fabric::MemoryRegion> read;      // a peer may read it
    std::unique_ptr<fabric::MemoryRegion> private_;  // a peer has no business in it
    std::unique_ptr<fabric::QueuePair> pair;
    uint64_t next_id = 1;
    std::map<uint64_t, bool> owed;  // by id: must complete even if all goes well

    Victim() {
        std::string reason;
        FUZZ_CHECK(fabric::open_device("shm", "", &device, &reason) == 0);
        FUZZ_CHECK(device->create_completion_queue(4 * kDepth, &queue) == 0);
        const uint32_t all = fabric::kRemoteWrite | fabric::kRemoteRead | fabric::kRemoteAtomic;
        FUZZ_CHECK(device->allocate(kBytes, all, &open) == 0);
        FUZZ_CHECK(device->allocate(4096, fabric::kRemoteRead, &read) == 0);
        FUZZ_CHECK(device->allocate(4096, 0, &private_) == 0);
        std::memset(read->data(), 0x11, 4096);
        std::memset(private_->data(), 0x22, 4096);
    }

    [[nodiscard]] fabric::QueuePairOptions options() const {
        fabric::QueuePairOptions result;
        result.send_queue = result.receive_queue = queue.get();
        result.send_depth = result.receive_depth = kDepth;
        result.inline_bytes = 64;
        return result;
    }

    void post_receive(uint32_t length) {
        fabric::ReceiveRequest request;
        request.id = next_id;
        if (length != 0) request.segment = {open->data(), length, open.get()};
        if (pair->post_receive(request) == 0) owed[next_id++] = true;
    }

    void post_send(fabric::SendRequest request) {
        request.id = next_id;
        if (pair->post_send(request) == 0) {
            owed[next_id++] = (request.flags & fabric::kSignaled) != 0;
        }
    }

    void poll() {
        fabric::Completion batch[8];
        const int count = queue->poll(batch, 8);
        FUZZ_CHECK(count >= 0 && count <= 8);
        for (int i = 0; i < count; ++i) {
            FUZZ_CHECK(owed.erase(batch[i].id) == 1);
            FUZZ_CHECK(pair == nullptr || batch[i].queue_pair == pair->number());
        }
    }

    void next_event() {
        std::vector<uint8_t> data;
        (void)pair->next_event(&data);
    }

    // The connection ends. Nobody has touched what was not theirs, and nothing is owed.
    void finish() {
        pair->disconnect();
        for (int i = 0; i < 16; ++i) poll();
        for (const auto& [id, must_complete] : owed) FUZZ_CHECK(!must_complete);
        owed.clear();
        pair.reset();
        poll();
        for (fabric::MemoryRegion* region : {open.get(), read.get(), private_.get()}) {
            FUZZ_CHECK(region->in_flight() == 0);
        }
        for (size_t i = 0; i < 4096; ++i) {
            FUZZ_CHECK(read->data()[i] == 0x11 && private_->data()[i] == 0x22);
        }
    }
};

}  // namespace rfaas::fuzz
