#include "addon/completion_queue.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "addon/records.h"
#include "addon/util/error.h"

namespace rfaas::addon {

namespace {

// Reading the clock costs as much as a few polls.
constexpr int kPollsPerClock = 16;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

struct CompletionQueueInit {
    std::shared_ptr<CompletionQueueHolder> holder;
    uint32_t depth;
};

Napi::Function CompletionQueue::define(Napi::Env env) {
    using Method = Napi::ClassPropertyDescriptor<CompletionQueue>;
    return DefineClass(
        env, "CompletionQueue",
        {
            raw_method<Method>("poll", poll),
            raw_method<Method>("spin", spin),
            raw_method<Method>("arm", arm),
            InstanceAccessor<&CompletionQueue::records>("records"),
            InstanceMethod<&CompletionQueue::watch>("watch", napi_default_method),
            InstanceMethod<&CompletionQueue::unwatch>("unwatch", napi_default_method),
            InstanceMethod<&CompletionQueue::close>("close", napi_default_method),
        });
}

Napi::Value CompletionQueue::create(Napi::Env env, std::shared_ptr<CompletionQueueHolder> holder,
                                    uint32_t depth) {
    CompletionQueueInit init{std::move(holder), depth};
    return construct(env, Module::of(env).completion_queue_class, init);
}

CompletionQueue::CompletionQueue(const Napi::CallbackInfo& info)
    : ObjectWrap(info), module_(Module::of(info.Env())) {
    auto* init = construction_arg<CompletionQueueInit>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    holder_ = init->holder;
    holder_->device->completion_queues.add(this);
    capacity_ = std::min(init->depth, kCompletionBatch);
    auto buffer = Napi::ArrayBuffer::New(info.Env(), capacity_ * sizeof(fabric::Completion));
    completions_ = static_cast<fabric::Completion*>(buffer.Data());
    buffer_ = Napi::Persistent(buffer);
}

// Collected, not closed: queue pairs that complete here may be in use, and they share the holder.
CompletionQueue::~CompletionQueue() {
    if (holder_) holder_->device->completion_queues.remove(this);
}

void CompletionQueue::close(CloseReason reason) {
    if (!holder_ || holder_->queue == nullptr) return;
    holder_->device->completion_queues.remove(this);
    holder_->queue_pairs.close_all(reason);
    watcher_.stop();
    waiting_.Reset();
    holder_->queue.reset();
    holder_->device->sweep();
}

int CompletionQueue::poll_into_records(uint32_t max) {
    const int count =
        holder_->queue->poll(completions_, static_cast<int>(std::min(max, capacity_)));
    if (count > 0) holder_->device->sweep();
    return count;
}

napi_value CompletionQueue::poll(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value argument = nullptr;
    napi_value self = nullptr;
    void* wrapped = nullptr;
    uint32_t max = 0;
    int result = -EBADF;
    napi_get_cb_info(env, info, &count, &argument, &self, nullptr);
    napi_get_value_uint32(env, argument, &max);
    if (napi_unwrap(env, self, &wrapped) == napi_ok) {
        auto* queue = static_cast<CompletionQueue*>(wrapped);
        if (queue->holder_->queue != nullptr) result = queue->poll_into_records(max);
    }
    napi_value out = nullptr;
    napi_create_int32(env, result, &out);
    return out;
}

napi_value CompletionQueue::spin(napi_env env, napi_callback_info info) {
    using Clock = std::chrono::steady_clock;
    size_t count = 2;
    napi_value arguments[2] = {};
    napi_value self = nullptr;
    void* wrapped = nullptr;
    uint32_t max = 0;
    double budget_us = 0;
    int result = -EBADF;
    napi_get_cb_info(env, info, &count, arguments, &self, nullptr);
    napi_get_value_uint32(env, arguments[0], &max);
    napi_get_value_double(env, arguments[1], &budget_us);
    if (napi_unwrap(env, self, &wrapped) == napi_ok) {
        auto* queue = static_cast<CompletionQueue*>(wrapped);
        if (queue->holder_->queue != nullptr) {
            result = queue->poll_into_records(max);
            if (result == 0) {
                const auto end =
                    Clock::now() + std::chrono::nanoseconds(static_cast<int64_t>(budget_us * 1e3));
                do {
                    for (int i = 0; i < kPollsPerClock && result == 0; ++i) {
                        relax();
                        result = queue->poll_into_records(max);
                    }
                } while (result == 0 && Clock::now() < end);
            }
        }
    }
    napi_value out = nullptr;
    napi_create_int32(env, result, &out);
    return out;
}

napi_value CompletionQueue::arm(napi_env env, napi_callback_info info) {
    napi_value self = nullptr;
    void* wrapped = nullptr;
    int result = -EBADF;
    napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
    if (napi_unwrap(env, self, &wrapped) == napi_ok) {
        auto* queue = static_cast<CompletionQueue*>(wrapped);
        if (queue->holder_->queue != nullptr) result = queue->holder_->queue->arm();
    }
    napi_value out = nullptr;
    napi_create_int32(env, result, &out);
    return out;
}

Napi::Value CompletionQueue::records(const Napi::CallbackInfo&) {
    return buffer_.Value();
}

// Calls back once, when the descriptor has become readable. The watcher stays in the loop between
// two waits, without keeping it alive: starting it anew would be two system calls for every wait.
void CompletionQueue::watch(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (holder_->queue == nullptr) return throw_closed(env, "completion queue");
    const int failed =
        watcher_.start(env, module_.handles, holder_->queue->fd(), [this] { on_readable(); });
    if (failed != 0) return throw_fabric_error(env, failed, "watch", "completion queue");
    waiting_ = Napi::Persistent(info[0].As<Napi::Function>());
    watcher_.ref();
}

void CompletionQueue::unwatch(const Napi::CallbackInfo&) {
    waiting_.Reset();
    watcher_.unref();
}

void CompletionQueue::on_readable() {
    // Also when nobody waits: poll is level-triggered and would call for ever.
    holder_->queue->acknowledge();
    watcher_.unref();
    if (waiting_.IsEmpty()) return;
    const Napi::FunctionReference callback = std::exchange(waiting_, Napi::FunctionReference());
    module_.call(callback, {});
}

void CompletionQueue::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
