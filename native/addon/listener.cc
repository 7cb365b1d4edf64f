#include "addon/listener.h"

#include <utility>

#include "addon/queue_pair.h"
#include "addon/util/args.h"
#include "addon/util/error.h"

namespace rfaas::addon {

struct ConnectionRequestInit {
    std::shared_ptr<ListenerHolder> listener;
    std::unique_ptr<fabric::ConnectionRequest> request;
};

Napi::Function Listener::define(Napi::Env env) {
    return DefineClass(env, "Listener",
                       {
                           InstanceAccessor<&Listener::address>("address"),
                           InstanceMethod<&Listener::next>("next", napi_default_method),
                           InstanceMethod<&Listener::watch>("watch", napi_default_method),
                           InstanceMethod<&Listener::unwatch>("unwatch", napi_default_method),
                           InstanceMethod<&Listener::close>("close", napi_default_method),
                       });
}

Napi::Value Listener::create(Napi::Env env, std::shared_ptr<ListenerHolder> holder) {
    return construct(env, Module::of(env).listener_class, holder);
}

Listener::Listener(const Napi::CallbackInfo& info)
    : ObjectWrap(info), module_(Module::of(info.Env())) {
    auto* init = construction_arg<std::shared_ptr<ListenerHolder>>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    holder_ = *init;
    holder_->device->connections.add(this);
}

Listener::~Listener() {
    close(CloseReason::kEnvironmentEnd);
}

void Listener::close(CloseReason reason) {
    if (!holder_ || holder_->listener == nullptr) return;
    holder_->device->connections.remove(this);
    holder_->requests.close_all(reason);
    watcher_.stop();
    waiting_.Reset();
    holder_->listener.reset();
}

Napi::Value Listener::address(const Napi::CallbackInfo& info) {
    const auto& listener = holder_->listener;
    return Napi::String::New(info.Env(), listener ? listener->address() : std::string());
}

// A request, or null when there is none now.
Napi::Value Listener::next(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (holder_->listener == nullptr) return throw_closed(env, "listener"), env.Undefined();
    std::unique_ptr<fabric::ConnectionRequest> request;
    const int failed = holder_->listener->next(&request);
    if (failed == -EAGAIN) return env.Null();
    if (failed != 0) {
        const std::string& address = holder_->listener->address();
        return throw_fabric_error(env, failed, "accept", address), env.Undefined();
    }
    return ConnectionRequest::create(env, holder_, std::move(request));
}

// Calls back once, when next() may have something.
void Listener::watch(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (holder_->listener == nullptr) return throw_closed(env, "listener");
    const int failed =
        watcher_.start(env, module_.handles, holder_->listener->fd(), [this] { on_readable(); });
    if (failed != 0) return throw_fabric_error(env, failed, "watch", "listener");
    watcher_.ref();
    waiting_ = Napi::Persistent(info[0].As<Napi::Function>());
}

// The watcher leaves the loop: requests that wait keep the descriptor readable.
void Listener::unwatch(const Napi::CallbackInfo&) {
    waiting_.Reset();
    watcher_.stop();
}

void Listener::on_readable() {
    watcher_.stop();
    const Napi::FunctionReference callback = std::exchange(waiting_, Napi::FunctionReference());
    module_.call(callback, {});
}

void Listener::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

Napi::Function ConnectionRequest::define(Napi::Env env) {
    return DefineClass(
        env, "ConnectionRequest",
        {
            InstanceAccessor<&ConnectionRequest::private_data>("privateData"),
            InstanceAccessor<&ConnectionRequest::peer>("peer"),
            InstanceMethod<&ConnectionRequest::prepare>("prepare", napi_default_method),
            InstanceMethod<&ConnectionRequest::accept>("accept", napi_default_method),
            InstanceMethod<&ConnectionRequest::reject>("reject", napi_default_method),
        });
}

Napi::Value ConnectionRequest::create(Napi::Env env, std::shared_ptr<ListenerHolder> listener,
                                      std::unique_ptr<fabric::ConnectionRequest> request) {
    ConnectionRequestInit init{std::move(listener), std::move(request)};
    return construct(env, Module::of(env).connection_request_class, init);
}

ConnectionRequest::ConnectionRequest(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    auto* init = construction_arg<ConnectionRequestInit>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    listener_ = init->listener;
    request_ = std::move(init->request);
    listener_->requests.add(this);
}

ConnectionRequest::~ConnectionRequest() {
    close(CloseReason::kEnvironmentEnd);
}

void ConnectionRequest::close(CloseReason) {
    if (request_ == nullptr) return;
    listener_->requests.remove(this);
    request_.reset();  // unanswered: rejects
}

Napi::Value ConnectionRequest::private_data(const Napi::CallbackInfo& info) {
    if (request_ == nullptr) return info.Env().Null();
    const auto& data = request_->private_data();
    return copy_bytes(info.Env(), data.data(), data.size());
}

Napi::Value ConnectionRequest::peer(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), request_ ? request_->peer() : std::string());
}

Napi::Value ConnectionRequest::prepare(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (request_ == nullptr) return throw_closed(env, "connection request"), env.Undefined();
    QueuePairArguments arguments;
    if (!arguments.read(info, 0)) return env.Undefined();
    std::unique_ptr<fabric::QueuePair> made;
    const int failed = request_->prepare(arguments.options, &made);
    if (failed != 0) return throw_fabric_error(env, failed, "prepare", ""), env.Undefined();
    return QueuePair::create(env, listener_->device, arguments, std::move(made));
}

void ConnectionRequest::accept(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (request_ == nullptr) return throw_closed(env, "connection request");
    auto* queue_pair = object_arg<QueuePair>(info, 0);
    if (queue_pair == nullptr || queue_pair->get() == nullptr) {
        return throw_closed(env, "queue pair");
    }
    const auto [data, bytes] = bytes_arg(info, 1);
    const int failed = request_->accept(queue_pair->get(), data, bytes);
    close(CloseReason::kAsked);
    if (failed != 0) throw_fabric_error(env, failed, "accept", "");
}

void ConnectionRequest::reject(const Napi::CallbackInfo& info) {
    if (request_ == nullptr) return;
    const auto [data, bytes] = bytes_arg(info, 0);
    request_->reject(data, bytes);
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
