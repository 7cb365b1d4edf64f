// The passive side of connections.
#pragma once

#include <napi.h>
#include <memory>

#include "addon/device.h"
#include "addon/util/uv_handle.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

// Shared with its unanswered requests, which end with it.
struct ListenerHolder {
    std::shared_ptr<DeviceHolder> device;
    std::unique_ptr<fabric::Listener> listener;  // null once closed
    Reaper requests;
};

class Listener final : public Napi::ObjectWrap<Listener>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a05, 0xa1c3a5f2d7e90005};
    static Napi::Function define(Napi::Env env);
    static Napi::Value create(Napi::Env env, std::shared_ptr<ListenerHolder> holder);
    explicit Listener(const Napi::CallbackInfo& info);
    ~Listener() override;
    void close(CloseReason reason) override;

  private:
    Napi::Value address(const Napi::CallbackInfo& info);
    Napi::Value next(const Napi::CallbackInfo& info);
    void watch(const Napi::CallbackInfo& info);
    void unwatch(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);
    void on_readable();

    Module& module_;
    std::shared_ptr<ListenerHolder> holder_;
    FdWatcher watcher_;
    Napi::FunctionReference waiting_;
};

class ConnectionRequest final : public Napi::ObjectWrap<ConnectionRequest>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a06, 0xa1c3a5f2d7e90006};
    static Napi::Function define(Napi::Env env);
    static Napi::Value create(Napi::Env env, std::shared_ptr<ListenerHolder> listener,
                              std::unique_ptr<fabric::ConnectionRequest> request);
    explicit ConnectionRequest(const Napi::CallbackInfo& info);
    ~ConnectionRequest() override;
    void close(CloseReason reason) override;

  private:
    Napi::Value private_data(const Napi::CallbackInfo& info);
    Napi::Value peer(const Napi::CallbackInfo& info);
    Napi::Value prepare(const Napi::CallbackInfo& info);
    void accept(const Napi::CallbackInfo& info);
    void reject(const Napi::CallbackInfo& info);

    std::shared_ptr<ListenerHolder> listener_;
    std::unique_ptr<fabric::ConnectionRequest> request_;  // null once answered
};

}  // namespace rfaas::addon
