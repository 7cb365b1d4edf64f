// Completions, polled into a preallocated buffer, and the two ways of waiting for them.
#pragma once

#include <napi.h>
#include <memory>

#include "addon/device.h"
#include "addon/util/uv_handle.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

// Shared with the queue pairs that complete here: they must be gone before it is.
struct CompletionQueueHolder {
    std::shared_ptr<DeviceHolder> device;
    std::unique_ptr<fabric::CompletionQueue> queue;  // null once closed
    Reaper queue_pairs;
};

class CompletionQueue final : public Napi::ObjectWrap<CompletionQueue>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a03, 0xa1c3a5f2d7e90003};
    static Napi::Function define(Napi::Env env);
    static Napi::Value create(Napi::Env env, std::shared_ptr<CompletionQueueHolder> holder,
                              uint32_t depth);
    explicit CompletionQueue(const Napi::CallbackInfo& info);
    ~CompletionQueue() override;
    void close(CloseReason reason) override;

    [[nodiscard]] const std::shared_ptr<CompletionQueueHolder>& holder() const { return holder_; }

  private:
    static napi_value poll(napi_env env, napi_callback_info info);
    static napi_value spin(napi_env env, napi_callback_info info);
    static napi_value arm(napi_env env, napi_callback_info info);
    Napi::Value records(const Napi::CallbackInfo& info);
    void watch(const Napi::CallbackInfo& info);
    void unwatch(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    int poll_into_records(uint32_t max);
    void on_readable();

    Module& module_;
    std::shared_ptr<CompletionQueueHolder> holder_;
    Napi::Reference<Napi::ArrayBuffer> buffer_;
    fabric::Completion* completions_ = nullptr;  // in buffer_
    uint32_t capacity_ = 0;
    FdWatcher watcher_;
    Napi::FunctionReference waiting_;  // empty when nobody waits
};

}  // namespace rfaas::addon
