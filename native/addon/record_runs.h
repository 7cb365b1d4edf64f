// Calls over records of registered memory, of which each follows another one in its slot without
// JavaScript: what a crossing and the bookkeeping there cost is more than the call itself.
//
// A run is what one mapRecords() calls. JavaScript sends the first call in each slot and notes in
// the slot's turn which run and which record that is. From then on a call that succeeds is followed
// by the run's next record, here, until there is none, the call fails, or JavaScript wants the slot
// (CallRecord::hold): then the outcome is delivered as any other, and the turn is JavaScript's
// again.
#pragma once

#include <napi.h>

#include <cstdint>
#include <vector>

#include "invocation/client_channel.h"

namespace rfaas::addon {

// Shared with JavaScript, which writes all of it once and later only `next`.
struct RecordRun {
    uint32_t next;  // record that has not begun
    uint32_t count;
    uint32_t function;
    uint32_t timeout_us;
    uint32_t input_region, input_offset, input_bytes;
    uint32_t output_region, output_offset, output_bytes;
};

// Of a slot; shared with JavaScript.
struct Turn {
    uint32_t run;     // 0: JavaScript's
    uint32_t record;  // that was sent last
};

class RecordRuns {
  public:
    RecordRuns(Napi::Env env, uint32_t workers, uint32_t slots);

    // One Turn for each slot, worker by worker.
    [[nodiscard]] Napi::Value turns() const { return turns_buffer_.Value(); }
    // `run` and `lengths` (one for each record) stay where they are until remove(). Returns its
    // number, which no other run gets.
    [[nodiscard]] uint32_t add(Napi::ArrayBuffer run, Napi::ArrayBuffer lengths);
    void remove(uint32_t number);
    [[nodiscard]] bool empty() const { return runs_.empty(); }

    // Sends what follows the outcomes of runs. Moves those that JavaScript has to know to the front
    // and returns how many they are. `hold`: all of them.
    [[nodiscard]] int go_on(invocation::ClientChannel* channel, bool hold,
                            invocation::CallOutcome* outcomes, int count);

  private:
    struct Run {
        uint32_t number;
        RecordRun* record;
        uint32_t* lengths;
        Napi::Reference<Napi::ArrayBuffer> record_buffer, lengths_buffer;
    };

    [[nodiscard]] Run* find(uint32_t number);
    [[nodiscard]] Turn* turn_of(const invocation::CallOutcome& outcome);

    const uint32_t workers_, slots_;
    Napi::Reference<Napi::ArrayBuffer> turns_buffer_;
    Turn* turns_;  // in turns_buffer_
    uint32_t last_number_ = 0;
    std::vector<Run> runs_;
    std::vector<invocation::CallRequest> requests_;  // of go_on()
};

}  // namespace rfaas::addon
