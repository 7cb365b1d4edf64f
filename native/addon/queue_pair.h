// A queue pair: work requests from preallocated records, and the events of its connection.
#pragma once

#include <napi.h>
#include <memory>

#include "addon/completion_queue.h"
#include "addon/device.h"
#include "addon/records.h"
#include "addon/util/uv_handle.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

// The six arguments from `index` on: send queue, receive queue, send depth, receive depth, inline
// bytes, rnr retry. Throws and returns false if a completion queue is closed.
struct QueuePairArguments {
    std::shared_ptr<CompletionQueueHolder> send_queue;
    std::shared_ptr<CompletionQueueHolder> receive_queue;
    fabric::QueuePairOptions options;

    bool read(const Napi::CallbackInfo& info, size_t index);
};

class QueuePair final : public Napi::ObjectWrap<QueuePair>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a04, 0xa1c3a5f2d7e90004};
    static Napi::Function define(Napi::Env env);
    static Napi::Value create(Napi::Env env, std::shared_ptr<DeviceHolder> device,
                              const QueuePairArguments& arguments,
                              std::unique_ptr<fabric::QueuePair> queue_pair);
    explicit QueuePair(const Napi::CallbackInfo& info);
    ~QueuePair() override;
    void close(CloseReason reason) override;

    [[nodiscard]] fabric::QueuePair* get() const { return queue_pair_.get(); }

  private:
    static napi_value post(napi_env env, napi_callback_info info);
    static napi_value post_receive(napi_env env, napi_callback_info info);
    Napi::Value records(const Napi::CallbackInfo& info);
    Napi::Value number(const Napi::CallbackInfo& info);
    Napi::Value state(const Napi::CallbackInfo& info);
    Napi::Value inline_bytes(const Napi::CallbackInfo& info);
    void watch(const Napi::CallbackInfo& info);
    void ref(const Napi::CallbackInfo& info);
    void unref(const Napi::CallbackInfo& info);
    void disconnect(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    int post_records(uint32_t count);
    int post_receive_records(uint32_t count);
    bool resolve(const SegmentRecord& record, fabric::Segment* out) const;
    void on_readable();

    Module& module_;
    std::shared_ptr<DeviceHolder> device_;
    std::shared_ptr<CompletionQueueHolder> send_queue_;
    std::shared_ptr<CompletionQueueHolder> receive_queue_;
    std::unique_ptr<fabric::QueuePair> queue_pair_;  // null once closed
    Napi::Reference<Napi::ArrayBuffer> buffer_;
    uint8_t* records_ = nullptr;  // in buffer_
    size_t records_bytes_ = 0;
    FdWatcher watcher_;
    Napi::FunctionReference on_event_;
};

}  // namespace rfaas::addon
