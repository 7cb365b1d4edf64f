// What one JavaScript environment (the main thread or a worker) holds of rfaas. There are no
// statics: everything that touches JavaScript hangs off this object, which lives as instance data.
#pragma once

#include <napi.h>
#include <memory>
#include <optional>

#include "addon/util/reaper.h"
#include "addon/util/uv_handle.h"

namespace rfaas::addon {

class Module {
  public:
    explicit Module(Napi::Env env);
    ~Module();
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;

    static Module& of(Napi::Env env) { return *env.GetInstanceData<Module>(); }

    // Runs a function of lib/ from the event loop, with the microtasks that follow it. What it
    // throws becomes an uncaught exception.
    void call(const Napi::FunctionReference& function, std::initializer_list<napi_value> arguments);

    [[nodiscard]] bool ending() const { return ending_; }

    Napi::FunctionReference error_class;  // RfaasError
    Napi::FunctionReference device_class;
    Napi::FunctionReference memory_region_class;
    Napi::FunctionReference completion_queue_class;
    Napi::FunctionReference queue_pair_class;
    Napi::FunctionReference listener_class;
    Napi::FunctionReference connection_request_class;
    Napi::FunctionReference invoker_class;
    Napi::FunctionReference worker_class;

    Reaper devices;
    Reaper workers;
    Reaper processes;
    // Shared, because libuv closes handles after their owners are gone.
    OpenHandles handles;

  private:
    static void end(napi_async_cleanup_hook_handle hook, void* self);

    Napi::Env env_;
    std::optional<Napi::AsyncContext> async_context_;
    napi_async_cleanup_hook_handle cleanup_hook_ = nullptr;
    bool ending_ = false;
};

// Objects of the native classes are made by native code only: `init` goes to the constructor as
// an External, and an undefined or foreign argument is refused.
template <typename Init>
Napi::Object construct(Napi::Env env, const Napi::FunctionReference& constructor, Init& init) {
    return constructor.New({Napi::External<Init>::New(env, &init)});
}

template <typename Init>
Init* construction_arg(const Napi::CallbackInfo& info) {
    if (!info[0].IsExternal()) {
        Napi::TypeError::New(info.Env(), "Illegal constructor").ThrowAsJavaScriptException();
        return nullptr;
    }
    return info[0].As<Napi::External<Init>>().Data();
}

// A method that takes the raw Node-API callback: the data path does without the C++ wrapper.
template <typename Descriptor>
Descriptor raw_method(const char* name, napi_callback method) {
    napi_property_descriptor descriptor{};
    descriptor.utf8name = name;
    descriptor.method = method;
    descriptor.attributes = napi_default_method;
    return Descriptor(descriptor);
}

}  // namespace rfaas::addon
