#include "addon/invoker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "addon/util/args.h"
#include "addon/util/error.h"
#include "core/spin.h"

namespace rfaas::addon {

namespace {

// How long one turn of the loop spins for an outcome: longer than a system call, so that most of
// the time goes into polling, and short enough for timers and sockets to get their turn.
constexpr uint64_t kTurnNs = 10'000;

// An awaited call that is alone: submit() looks so many times for its answer, some microseconds,
// which is less than a turn of the loop costs. If that was in vain, the next ones are not spun for.
constexpr uint32_t kLooks = 64;
constexpr uint32_t kUnhurried = 16;

// A program that awaits one such call after the other never goes back to its loop. By the coarse
// clock, so until its next tick.
constexpr uint64_t kHoldNs = 1'000'000;

struct InvokerInit {
    std::shared_ptr<DeviceHolder> device;
    std::unique_ptr<invocation::ClientChannel> channel;
    invocation::ClientChannel::Limits limits;
};

napi_value int32_value(napi_env env, int32_t value) {
    napi_value out = nullptr;
    napi_create_int32(env, value, &out);
    return out;
}

}  // namespace

Napi::Function Invoker::define(Napi::Env env) {
    using Method = Napi::ClassPropertyDescriptor<Invoker>;
    return DefineClass(
        env, "Invoker",
        {
            raw_method<Method>("finish", finish),
            raw_method<Method>("poll", poll),
            raw_method<Method>("sendQueued", send_queued),
            InstanceAccessor<&Invoker::record>("record"),
            InstanceAccessor<&Invoker::turns>("turns"),
            InstanceMethod<&Invoker::add_run>("addRun", napi_default_method),
            InstanceMethod<&Invoker::remove_run>("removeRun", napi_default_method),
            InstanceMethod<&Invoker::connect>("connect", napi_default_method),
            InstanceMethod<&Invoker::reconnect>("reconnect", napi_default_method),
            InstanceMethod<&Invoker::disconnect>("disconnect", napi_default_method),
            InstanceMethod<&Invoker::abandon>("abandon", napi_default_method),
            InstanceMethod<&Invoker::welcome>("welcome", napi_default_method),
            InstanceMethod<&Invoker::add_region>("addRegion", napi_default_method),
            InstanceMethod<&Invoker::remove_region>("removeRegion", napi_default_method),
            InstanceMethod<&Invoker::error_text>("errorText", napi_default_method),
            InstanceMethod<&Invoker::on_outcomes>("onOutcomes", napi_default_method),
            InstanceMethod<&Invoker::attend>("attend", napi_default_method),
            InstanceMethod<&Invoker::close>("close", napi_default_method),
        });
}

Napi::Value Invoker::create(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto* device = object_arg<Device>(info, 0);
    if (device == nullptr || device->holder()->get() == nullptr) {
        throw_closed(env, "device");
        return env.Undefined();
    }
    const invocation::ClientChannel::Limits limits{uint32_arg(info, 1), uint32_arg(info, 2)};
    InvokerInit init{device->holder(),
                     std::make_unique<invocation::ClientChannel>(device->holder()->get(), limits),
                     limits};
    const int failed = init.channel->open();
    if (failed != 0) {
        throw_fabric_error(env, failed, "create_invoker",
                           std::to_string(limits.workers) + " workers of " +
                               std::to_string(limits.slots) + " slots");
        return env.Undefined();
    }
    return construct(env, Module::of(env).invoker_class, init);
}

Invoker::Invoker(const Napi::CallbackInfo& info)
    : ObjectWrap(info), module_(Module::of(info.Env())) {
    auto* init = construction_arg<InvokerInit>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    device_ = std::move(init->device);
    channel_ = std::move(init->channel);
    device_->connections.add(this);
    connecting_.resize(init->limits.workers);
    regions_.resize(wire::kMaxRegions, nullptr);
    auto buffer = Napi::ArrayBuffer::New(info.Env(), sizeof(CallRecord));
    record_ = static_cast<CallRecord*>(buffer.Data());
    buffer_ = Napi::Persistent(buffer);
    runs_.emplace(info.Env(), init->limits.workers, init->limits.slots);
    (void)loop_.start(info.Env(), module_.handles);  // without it nothing is answered at once
    doors_.open(info.Env(), Value(), "call", call);
    doors_.open(info.Env(), Value(), "submit", submit);
}

Invoker* Invoker::open_one(napi_env env, napi_callback_info info) {
    Invoker* invoker = Doors<Invoker>::owner(env, info);
    return invoker != nullptr && invoker->channel_ ? invoker : nullptr;
}

// For methods, which are called once for many calls.
Invoker* Invoker::open_self(napi_env env, napi_callback_info info) {
    napi_value self = nullptr;
    void* wrapped = nullptr;
    napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
    if (napi_unwrap(env, self, &wrapped) != napi_ok) return nullptr;
    auto* invoker = static_cast<Invoker*>(wrapped);
    return invoker->channel_ ? invoker : nullptr;
}

Invoker::~Invoker() {
    if (channel_) close(CloseReason::kAsked);
}

void Invoker::close(CloseReason) {
    if (!channel_) return;
    device_->connections.remove(this);
    turner_.close();
    loop_.close();
    watcher_.stop();
    connecting_.clear();
    channel_.reset();  // the workers are cut off: nobody writes to the regions any more
    for (fabric::MemoryRegion*& region : regions_) {
        if (region != nullptr) std::exchange(region, nullptr)->unpin();
    }
    device_->sweep();
    on_outcomes_.Reset();
}

// ── the data path: raw Node-API, no allocation, no exception ────────────────────────────────────

napi_value Invoker::call(napi_env env, napi_callback_info info) {
    Invoker* invoker = open_one(env, info);
    if (invoker == nullptr) return int32_value(env, -EBADF);
    const CallRecord* record = invoker->record_;
    Spinner spinner(uint64_t{record->patience_us} * 1000);
    invocation::CallOutcome outcome;
    const int rc = invoker->channel_->call(record->request, &spinner, &outcome);
    return invoker->finished(env, rc, spinner, outcome);
}

napi_value Invoker::finish(napi_env env, napi_callback_info info) {
    Invoker* invoker = open_self(env, info);
    if (invoker == nullptr) return int32_value(env, -EBADF);
    const CallRecord* record = invoker->record_;
    Spinner spinner(uint64_t{record->patience_us} * 1000);
    invocation::CallOutcome outcome;
    const int rc =
        invoker->channel_->finish(record->request.worker, record->request.slot, &spinner, &outcome);
    return invoker->finished(env, rc, spinner, outcome);
}

napi_value Invoker::finished(napi_env env, int rc, const Spinner& spinner,
                             const invocation::CallOutcome& outcome) {
    record_->result_length = outcome.length;
    if (rc != 0 || outcome.status != 0) [[unlikely]]
        record_->patience_us = static_cast<uint32_t>(spinner.left_ns() / 1000);
    // Outcomes of awaited calls that were taken meanwhile: no descriptor tells of them any more.
    if (channel_->has_ready()) [[unlikely]]
        wait_hot();
    return int32_value(env, rc < 0 ? rc : static_cast<int32_t>(outcome.status));
}

napi_value Invoker::submit(napi_env env, napi_callback_info info) {
    Invoker* invoker = open_one(env, info);
    if (invoker == nullptr) return int32_value(env, -EBADF);
    int rc = invoker->channel_->submit(invoker->record_->request);
    if (rc == 0) rc = invoker->answer_at_once();
    if (rc == 0) invoker->wait_hot();
    return int32_value(env, rc);
}

// The outcome of a call that has just been sent, or 0. What this saves is a turn of the loop and
// all that lets a promise wait; what it costs if the function takes longer is a few microseconds.
int Invoker::answer_at_once() {
    if (record_->alone == 0 || hot_ns_ == 0) return 0;
    if (channel_->in_flight() != 1 || channel_->has_ready()) return 0;
    if (unhurried_ != 0) {
        --unhurried_;
        return 0;
    }
    if (!may_hold_loop()) return 0;
    const invocation::CallRequest& request = record_->request;
    invocation::CallOutcome outcome;
    if (!channel_->look(request.worker, request.slot, kLooks, &outcome)) {
        unhurried_ = kUnhurried;
        return 0;
    }
    record_->result_length = outcome.length;
    return kAnswered + static_cast<int>(outcome.status);
}

bool Invoker::may_hold_loop() {
    const uint64_t now = coarse_monotonic_ns();
    if (loop_.turns() != held_turn_) {
        held_turn_ = loop_.turns();
        held_since_ns_ = now;
    }
    return now - held_since_ns_ < kHoldNs;
}

napi_value Invoker::send_queued(napi_env env, napi_callback_info info) {
    Invoker* invoker = open_self(env, info);
    if (invoker == nullptr) return int32_value(env, -EBADF);
    invoker->send_queued();
    return int32_value(env, 0);
}

void Invoker::send_queued() {
    const uint32_t count = std::min(std::exchange(record_->queued, 0), kQueueRoom);
    if (count == 0) return;
    channel_->submit(record_->queue, count);
    wait_hot();
}

napi_value Invoker::poll(napi_env env, napi_callback_info info) {
    Invoker* invoker = open_self(env, info);
    return int32_value(env, invoker == nullptr ? -EBADF : invoker->poll_outcomes());
}

int Invoker::poll_outcomes() {
    send_queued();
    const int count = channel_->poll(record_->outcomes, kOutcomeBatch);
    if (count <= 0 || runs_->empty()) return count;
    const int kept = runs_->go_on(channel_.get(), record_->hold != 0, record_->outcomes, count);
    went_on_ |= kept != count;
    return kept;
}

// ── waiting on the event loop ───────────────────────────────────────────────────────────────────
//
// Hot: each turn of the loop spins a little, and the loop keeps turning. After `hot_ns_` without an
// outcome, warm: the completion queue's descriptor wakes the loop. With nothing in flight, neither,
// and the process may end.

// Arguments: callback(count), microseconds to stay hot.
void Invoker::on_outcomes(const Napi::CallbackInfo& info) {
    if (!channel_) return;
    on_outcomes_ = Napi::Persistent(info[0].As<Napi::Function>());
    hot_ns_ = static_cast<uint64_t>(double_arg(info, 1) * 1000);
}

void Invoker::attend(const Napi::CallbackInfo&) {
    if (channel_) wait_hot();
}

void Invoker::wait_hot() {
    if (turning_) return;
    watcher_.unref();
    idle_since_ns_ = monotonic_ns();
    turning_ = turner_.start(Env(), module_.handles, [this] { turn(); }) == 0;
}

// What the caller does with an outcome may send the next call, which is answered within the same
// turn: only when a turn's time is over the loop gets the rest of it.
void Invoker::turn() {
    // Whoever is told of an outcome may close us and forget us.
    const Napi::HandleScope scope(Env());
    [[maybe_unused]] const Napi::Object alive = Value();
    const uint64_t begin = monotonic_ns();
    do {
        Spinner spinner(std::min(kTurnNs, hot_ns_));
        int count = poll_outcomes();
        while (count == 0 && channel_->in_flight() != 0) {
            if (std::exchange(went_on_, false)) {
                // The spinner counts looks that were in vain. Runs would go on here until they end.
                idle_since_ns_ = monotonic_ns();
                if (idle_since_ns_ - begin >= kTurnNs) return;
            } else if (!spinner.wait()) {
                break;
            }
            count = poll_outcomes();
        }
        if (count == 0) break;
        idle_since_ns_ = monotonic_ns();
        if (count > 1) unhurried_ = kUnhurried;  // calls come many at a time
        deliver(count);
        if (!channel_) return;
    } while (channel_->in_flight() != 0 && idle_since_ns_ - begin < kTurnNs);
    if (channel_->in_flight() == 0 && !channel_->has_ready()) {
        rest();
    } else if (monotonic_ns() - idle_since_ns_ >= hot_ns_) {
        sleep();
    }
}

// JavaScript may close us or submit more from inside.
void Invoker::deliver(int count) {
    const Napi::HandleScope scope(Env());
    module_.call(on_outcomes_, {Napi::Number::New(Env(), count)});
    if (channel_) send_queued();
}

void Invoker::sleep() {
    if (watcher_.start(Env(), module_.handles, channel_->fd(), [this] { on_readable(); }) != 0 ||
        channel_->arm() != 0) {
        return;  // no descriptor to wait on: go on turning
    }
    turner_.stop();
    turning_ = false;
    watcher_.ref();
    const int count = poll_outcomes();  // what came in before arm() makes no descriptor readable
    if (count == 0 && !went_on_) return;
    wait_hot();
    if (count != 0) deliver(count);
}

void Invoker::on_readable() {
    channel_->acknowledge();
    const int count = poll_outcomes();
    if (channel_->in_flight() != 0 || count != 0) {
        wait_hot();
    } else {
        rest();
    }
    if (count != 0) deliver(count);
}

void Invoker::rest() {
    turner_.stop();
    turning_ = false;
    watcher_.unref();
}

// ── the control path ────────────────────────────────────────────────────────────────────────────

Napi::Value Invoker::record(const Napi::CallbackInfo&) {
    return buffer_.Value();
}

Napi::Value Invoker::turns(const Napi::CallbackInfo& info) {
    return runs_ ? runs_->turns() : info.Env().Null();
}

// Arguments: ArrayBuffers of a RecordRun and of the lengths of its results.
Napi::Value Invoker::add_run(const Napi::CallbackInfo& info) {
    const bool buffers = runs_ && info[0].IsArrayBuffer() && info[1].IsArrayBuffer();
    const uint32_t number =
        buffers ? runs_->add(info[0].As<Napi::ArrayBuffer>(), info[1].As<Napi::ArrayBuffer>()) : 0;
    return Napi::Number::New(info.Env(), number);
}

void Invoker::remove_run(const Napi::CallbackInfo& info) {
    if (runs_) runs_->remove(uint32_arg(info, 0));
}

// Arguments: worker, address, ticket (32 bytes), callback(reason: string | null) which is called
// once, unless disconnect() comes first.
void Invoker::connect(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!channel_) return throw_closed(env, "executor");
    const uint32_t worker = uint32_arg(info, 0);
    const std::string address = string_arg(info, 1);
    const auto [bytes, length] = bytes_arg(info, 2);
    uint8_t ticket[wire::kTicketBytes] = {};
    if (length == sizeof ticket) std::memcpy(ticket, bytes, sizeof ticket);
    if (worker >= connecting_.size()) return throw_fabric_error(env, -EINVAL, "connect", address);
    connecting_[worker].reset();
    int failed = channel_->connect(worker, address, ticket);
    if (failed == 0) {
        auto connecting = std::make_unique<Connecting>();
        connecting->callback = Napi::Persistent(info[3].As<Napi::Function>());
        failed = connecting->watcher.start(env, module_.handles, channel_->connect_fd(worker),
                                           [this, worker] { connect_step(worker); });
        connecting->watcher.ref();
        connecting_[worker] = std::move(connecting);
    }
    if (failed != 0) {
        connecting_[worker].reset();
        throw_fabric_error(env, failed, "connect", address);
    }
}

void Invoker::connect_step(uint32_t worker) {
    std::string reason;
    const invocation::ConnectProgress progress = channel_->connect_step(worker, &reason);
    if (progress == invocation::ConnectProgress::kPending) return;
    const std::unique_ptr<Connecting> connecting = std::move(connecting_[worker]);
    connecting->watcher.stop();
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    const bool connected = progress == invocation::ConnectProgress::kConnected;
    if (!connected) channel_->disconnect(worker);
    module_.call(connecting->callback,
                 {connected ? env.Null() : Napi::Value(Napi::String::New(env, reason))});
}

// For a caller that holds the thread. Arguments: worker, address, ticket, microseconds that it may
// take. 0, or a negative errno: what connecting said at once, -EACCES (refused), -EHOSTUNREACH, or
// -ETIMEDOUT.
Napi::Value Invoker::reconnect(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const uint32_t worker = uint32_arg(info, 0);
    const auto [bytes, length] = bytes_arg(info, 2);
    uint8_t ticket[wire::kTicketBytes] = {};
    if (!channel_ || worker >= connecting_.size() || length != sizeof ticket) {
        return Napi::Number::New(env, -EBADF);
    }
    std::memcpy(ticket, bytes, sizeof ticket);
    connecting_[worker].reset();
    int failed = channel_->connect(worker, string_arg(info, 1), ticket);
    if (failed != 0) return Napi::Number::New(env, failed);
    Spinner spinner(static_cast<uint64_t>(double_arg(info, 3) * 1000));
    std::string reason;
    invocation::ConnectProgress progress = channel_->connect_step(worker, &reason);
    while (progress == invocation::ConnectProgress::kPending && spinner.wait()) {
        progress = channel_->connect_step(worker, &reason);
    }
    switch (progress) {
        case invocation::ConnectProgress::kConnected:
            return Napi::Number::New(env, 0);
        case invocation::ConnectProgress::kPending:
            failed = -ETIMEDOUT;
            break;
        case invocation::ConnectProgress::kRefused:
            failed = -EACCES;
            break;
        case invocation::ConnectProgress::kUnreachable:
            failed = -EHOSTUNREACH;
            break;
    }
    channel_->disconnect(worker);
    return Napi::Number::New(env, failed);
}

void Invoker::disconnect(const Napi::CallbackInfo& info) {
    const uint32_t worker = uint32_arg(info, 0);
    if (!channel_ || worker >= connecting_.size()) return;
    connecting_[worker].reset();
    channel_->disconnect(worker);
}

// Arguments: worker, id of the last request that it started; Infinity: nobody knows.
void Invoker::abandon(const Napi::CallbackInfo& info) {
    const uint32_t worker = uint32_arg(info, 0);
    if (!channel_ || worker >= connecting_.size()) return;
    const double last = double_arg(info, 1);
    const bool known = last >= 0 && last < 0x1p64;
    connecting_[worker].reset();
    channel_->disconnect(worker);
    channel_->abandon(worker,
                      known ? static_cast<uint64_t>(last) : invocation::ClientChannel::kAnyStarted);
}

// Longest payload and longest result of a connected worker.
Napi::Value Invoker::welcome(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const uint32_t worker = uint32_arg(info, 0);
    if (!channel_ || worker >= connecting_.size() || !channel_->connected(worker)) {
        return env.Null();
    }
    auto out = Napi::Object::New(env);
    out.Set("payloadBytes", channel_->welcome(worker).payload_bytes);
    out.Set("outputBytes", channel_->welcome(worker).output_bytes);
    return out;
}

// The region stays pinned until it is removed: closing it in between only takes it from JavaScript.
Napi::Value Invoker::add_region(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto* object = object_arg<MemoryRegion>(info, 0);
    fabric::MemoryRegion* region = object == nullptr ? nullptr : object->get();
    if (!channel_ || region == nullptr) {
        throw_closed(env, channel_ ? "memory region" : "executor");
        return env.Undefined();
    }
    const int index = channel_->add_region(region);
    if (index < 0) {
        throw_fabric_error(env, index, "add_region", std::to_string(region->length()) + " bytes");
        return env.Undefined();
    }
    region->pin();
    regions_[static_cast<uint32_t>(index)] = region;
    return Napi::Number::New(env, index);
}

void Invoker::remove_region(const Napi::CallbackInfo& info) {
    const uint32_t index = uint32_arg(info, 0);
    if (!channel_ || index >= regions_.size() || regions_[index] == nullptr) return;
    channel_->remove_region(index);
    std::exchange(regions_[index], nullptr)->unpin();
    device_->sweep();
}

Napi::Value Invoker::error_text(const Napi::CallbackInfo& info) {
    if (!channel_) return info.Env().Null();
    const std::string_view text =
        channel_->error_text(uint32_arg(info, 0), uint32_arg(info, 1), uint32_arg(info, 2));
    return Napi::String::New(info.Env(), text.data(), text.size());
}

void Invoker::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
