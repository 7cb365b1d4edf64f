#include "addon/record_runs.h"

#include <algorithm>

namespace rfaas::addon {

namespace {

invocation::CallRequest request_of(const RecordRun& run, const invocation::CallOutcome& outcome,
                                   uint32_t index) {
    invocation::CallRequest request;
    request.worker = outcome.worker;
    request.slot = outcome.slot;
    request.function = run.function;
    request.input_region = run.input_region;
    request.input_offset = run.input_offset + index * run.input_bytes;
    request.input_length = run.input_bytes;
    request.output_region = run.output_region;
    request.output_offset = run.output_offset + index * run.output_bytes;
    request.output_capacity = run.output_bytes;
    request.timeout_us = run.timeout_us;
    return request;
}

}  // namespace

RecordRuns::RecordRuns(Napi::Env env, uint32_t workers, uint32_t slots)
    : workers_(workers), slots_(slots) {
    auto buffer = Napi::ArrayBuffer::New(env, size_t{workers} * slots * sizeof(Turn));
    turns_ = static_cast<Turn*>(buffer.Data());
    turns_buffer_ = Napi::Persistent(buffer);
}

uint32_t RecordRuns::add(Napi::ArrayBuffer run, Napi::ArrayBuffer lengths) {
    auto* record = static_cast<RecordRun*>(run.Data());
    if (run.ByteLength() < sizeof *record ||
        lengths.ByteLength() / sizeof(uint32_t) < record->count) {
        return 0;
    }
    runs_.push_back({++last_number_, record, static_cast<uint32_t*>(lengths.Data()),
                     Napi::Persistent(run), Napi::Persistent(lengths)});
    return last_number_;
}

void RecordRuns::remove(uint32_t number) {
    std::erase_if(runs_, [number](const Run& run) { return run.number == number; });
}

RecordRuns::Run* RecordRuns::find(uint32_t number) {
    const auto found = std::find_if(runs_.begin(), runs_.end(),
                                    [number](const Run& run) { return run.number == number; });
    return found != runs_.end() ? &*found : nullptr;
}

Turn* RecordRuns::turn_of(const invocation::CallOutcome& outcome) {
    if (outcome.worker >= workers_ || outcome.slot >= slots_) return nullptr;
    return &turns_[size_t{outcome.worker} * slots_ + outcome.slot];
}

int RecordRuns::go_on(invocation::ClientChannel* channel, bool hold,
                      invocation::CallOutcome* outcomes, int count) {
    requests_.clear();
    int kept = 0;
    for (int i = 0; i < count; ++i) {
        const invocation::CallOutcome outcome = outcomes[i];
        Turn* turn = turn_of(outcome);
        if (turn == nullptr || turn->run == 0) {
            outcomes[kept++] = outcome;
            continue;
        }
        Run* run = find(turn->run);
        const bool ok = outcome.status == static_cast<uint32_t>(wire::CallStatus::kOk);
        hold = hold || !ok;  // nothing is sent behind a failure before JavaScript knows of it
        if (run == nullptr || hold || run->record->next >= run->record->count) {
            turn->run = 0;
            outcomes[kept++] = outcome;
            continue;
        }
        run->lengths[turn->record] = outcome.length;
        turn->record = run->record->next++;
        requests_.push_back(request_of(*run->record, outcome, turn->record));
    }
    if (!requests_.empty()) {
        channel->submit(requests_.data(), static_cast<uint32_t>(requests_.size()));
    }
    return kept;
}

}  // namespace rfaas::addon
