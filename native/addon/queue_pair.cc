#include "addon/queue_pair.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "addon/memory_region.h"
#include "addon/util/args.h"
#include "addon/util/error.h"

namespace rfaas::addon {

struct QueuePairInit {
    std::shared_ptr<DeviceHolder> device;
    const QueuePairArguments* arguments;
    std::unique_ptr<fabric::QueuePair> queue_pair;
};

bool QueuePairArguments::read(const Napi::CallbackInfo& info, size_t index) {
    auto* send = object_arg<CompletionQueue>(info, index);
    auto* receive = object_arg<CompletionQueue>(info, index + 1);
    if (send == nullptr || receive == nullptr || send->holder()->queue == nullptr ||
        receive->holder()->queue == nullptr) {
        throw_closed(info.Env(), "completion queue");
        return false;
    }
    send_queue = send->holder();
    receive_queue = receive->holder();
    options.send_queue = send_queue->queue.get();
    options.receive_queue = receive_queue->queue.get();
    options.send_depth = uint32_arg(info, index + 2);
    options.receive_depth = uint32_arg(info, index + 3);
    options.inline_bytes = uint32_arg(info, index + 4);
    options.rnr_retry = static_cast<uint8_t>(uint32_arg(info, index + 5));
    return true;
}

Napi::Function QueuePair::define(Napi::Env env) {
    using Method = Napi::ClassPropertyDescriptor<QueuePair>;
    return DefineClass(
        env, "QueuePair",
        {
            raw_method<Method>("post", post),
            raw_method<Method>("postReceive", post_receive),
            InstanceAccessor<&QueuePair::records>("records"),
            InstanceAccessor<&QueuePair::number>("number"),
            InstanceAccessor<&QueuePair::state>("state"),
            InstanceAccessor<&QueuePair::inline_bytes>("inlineBytes"),
            InstanceMethod<&QueuePair::watch>("watch", napi_default_method),
            InstanceMethod<&QueuePair::ref>("ref", napi_default_method),
            InstanceMethod<&QueuePair::unref>("unref", napi_default_method),
            InstanceMethod<&QueuePair::disconnect>("disconnect", napi_default_method),
            InstanceMethod<&QueuePair::close>("close", napi_default_method),
        });
}

Napi::Value QueuePair::create(Napi::Env env, std::shared_ptr<DeviceHolder> device,
                              const QueuePairArguments& arguments,
                              std::unique_ptr<fabric::QueuePair> queue_pair) {
    QueuePairInit init{std::move(device), &arguments, std::move(queue_pair)};
    return construct(env, Module::of(env).queue_pair_class, init);
}

QueuePair::QueuePair(const Napi::CallbackInfo& info)
    : ObjectWrap(info), module_(Module::of(info.Env())) {
    auto* init = construction_arg<QueuePairInit>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    device_ = init->device;
    send_queue_ = init->arguments->send_queue;
    receive_queue_ = init->arguments->receive_queue;
    queue_pair_ = std::move(init->queue_pair);
    device_->connections.add(this);
    send_queue_->queue_pairs.add(this);
    receive_queue_->queue_pairs.add(this);
    records_bytes_ = kStagingArea + size_t{kBatch} * queue_pair_->inline_bytes();
    auto buffer = Napi::ArrayBuffer::New(info.Env(), records_bytes_);
    records_ = static_cast<uint8_t*>(buffer.Data());
    buffer_ = Napi::Persistent(buffer);
}

QueuePair::~QueuePair() {
    close(CloseReason::kEnvironmentEnd);
}

void QueuePair::close(CloseReason) {
    if (queue_pair_ == nullptr) return;
    device_->connections.remove(this);
    send_queue_->queue_pairs.remove(this);
    receive_queue_->queue_pairs.remove(this);
    watcher_.stop();
    on_event_.Reset();
    queue_pair_.reset();
    device_->sweep();
    send_queue_.reset();
    receive_queue_.reset();
}

bool QueuePair::resolve(const SegmentRecord& record, fabric::Segment* out) const {
    out->length = record.length;
    if (record.region == kNoRegion) return true;
    if (record.region == kStagedRegion) {
        const size_t staged = records_bytes_ - kStagingArea;
        if (record.offset > staged || record.length > staged - record.offset) return false;
        out->address = records_ + kStagingArea + record.offset;
        return true;
    }
    out->region = device_->region(record.region);
    if (out->region == nullptr) return false;
    // The provider checks that it lies within the region.
    out->address = out->region->data() + record.offset;
    return true;
}

int QueuePair::post_records(uint32_t count) {
    const auto* records = reinterpret_cast<const SendRecord*>(records_);
    count = std::min(count, kBatch);
    const uint8_t more = count > 1 ? fabric::kMore : 0;
    for (uint32_t i = 0; i < count; ++i) {
        const SendRecord& record = records[i];
        fabric::SendRequest request;
        request.id = record.id;
        request.opcode = static_cast<fabric::Opcode>(record.opcode);
        request.flags = record.flags | more;
        request.segment_count = record.segment_count;
        request.immediate = record.immediate;
        request.remote_address = record.remote_address;
        request.rkey = record.rkey;
        request.compare_add = record.compare_add;
        request.swap = record.swap;
        int failed = record.segment_count > 2 ? -EINVAL : 0;
        for (uint8_t s = 0; failed == 0 && s < record.segment_count; ++s) {
            if (!resolve(record.segments[s], &request.segments[s])) failed = -EINVAL;
        }
        if (failed == 0) failed = queue_pair_->post_send(request);
        if (failed < 0) {
            queue_pair_->ring();
            return i > 0 ? static_cast<int>(i) : failed;
        }
    }
    queue_pair_->ring();
    return static_cast<int>(count);
}

int QueuePair::post_receive_records(uint32_t count) {
    const auto* records = reinterpret_cast<const ReceiveRecord*>(records_ + kReceiveRecords);
    count = std::min(count, kBatch);
    for (uint32_t i = 0; i < count; ++i) {
        fabric::ReceiveRequest request;
        request.id = records[i].id;
        const bool known = records[i].segment.region != kStagedRegion &&
                           resolve(records[i].segment, &request.segment);
        const int failed = known ? queue_pair_->post_receive(request) : -EINVAL;
        if (failed < 0) return i > 0 ? static_cast<int>(i) : failed;
    }
    return static_cast<int>(count);
}

napi_value QueuePair::post(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value argument = nullptr;
    napi_value self = nullptr;
    void* wrapped = nullptr;
    uint32_t requests = 0;
    int result = -EBADF;
    napi_get_cb_info(env, info, &count, &argument, &self, nullptr);
    napi_get_value_uint32(env, argument, &requests);
    if (napi_unwrap(env, self, &wrapped) == napi_ok) {
        auto* pair = static_cast<QueuePair*>(wrapped);
        if (pair->queue_pair_ != nullptr) result = pair->post_records(requests);
    }
    napi_value out = nullptr;
    napi_create_int32(env, result, &out);
    return out;
}

napi_value QueuePair::post_receive(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value argument = nullptr;
    napi_value self = nullptr;
    void* wrapped = nullptr;
    uint32_t requests = 0;
    int result = -EBADF;
    napi_get_cb_info(env, info, &count, &argument, &self, nullptr);
    napi_get_value_uint32(env, argument, &requests);
    if (napi_unwrap(env, self, &wrapped) == napi_ok) {
        auto* pair = static_cast<QueuePair*>(wrapped);
        if (pair->queue_pair_ != nullptr) result = pair->post_receive_records(requests);
    }
    napi_value out = nullptr;
    napi_create_int32(env, result, &out);
    return out;
}

Napi::Value QueuePair::records(const Napi::CallbackInfo&) {
    return buffer_.Value();
}

Napi::Value QueuePair::number(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), queue_pair_ ? queue_pair_->number() : 0);
}

Napi::Value QueuePair::state(const Napi::CallbackInfo& info) {
    const auto state = queue_pair_ ? queue_pair_->state() : fabric::QueuePairState::kClosed;
    return Napi::Number::New(info.Env(), static_cast<uint32_t>(state));
}

Napi::Value QueuePair::inline_bytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), queue_pair_ ? queue_pair_->inline_bytes() : 0);
}

// Calls back with every event of the connection until it has ended.
void QueuePair::watch(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (queue_pair_ == nullptr) return throw_closed(env, "queue pair");
    on_event_ = Napi::Persistent(info[0].As<Napi::Function>());
    const int failed =
        watcher_.start(env, module_.handles, queue_pair_->fd(), [this] { on_readable(); });
    if (failed != 0) throw_fabric_error(env, failed, "watch", "queue pair");
}

void QueuePair::ref(const Napi::CallbackInfo&) {
    watcher_.ref();
}
void QueuePair::unref(const Napi::CallbackInfo&) {
    watcher_.unref();
}

void QueuePair::on_readable() {
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    [[maybe_unused]] const Napi::Object self =
        Value();  // the callback may drop the last reference to it
    while (queue_pair_ != nullptr && !on_event_.IsEmpty()) {
        std::vector<uint8_t> data;
        const auto event = queue_pair_->next_event(&data);
        if (event == fabric::ConnectionEvent::kNone) return;
        const bool last = event != fabric::ConnectionEvent::kEstablished;
        Napi::FunctionReference callback;
        if (last) {
            // No event follows, and the descriptor may stay readable.
            watcher_.stop();
            callback = std::exchange(on_event_, Napi::FunctionReference());
        }
        module_.call(last ? callback : on_event_,
                     {Napi::Number::New(env, static_cast<uint32_t>(event)),
                      copy_bytes(env, data.data(), data.size())});
    }
}

void QueuePair::disconnect(const Napi::CallbackInfo&) {
    if (queue_pair_ != nullptr) queue_pair_->disconnect();
}

void QueuePair::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
