#include "addon/device.h"

#include <algorithm>
#include <utility>

#include "addon/completion_queue.h"
#include "addon/listener.h"
#include "addon/memory_region.h"
#include "addon/queue_pair.h"
#include "addon/util/args.h"
#include "addon/util/error.h"

namespace rfaas::addon {

DeviceHolder::DeviceHolder(Module& module, std::unique_ptr<fabric::Device> device)
    : module_(module), device_(std::move(device)) {
    module_.devices.add(this);
}

DeviceHolder::~DeviceHolder() {
    close(CloseReason::kEnvironmentEnd);
}

void DeviceHolder::close(CloseReason reason) {
    if (closed_) return;
    closed_ = true;
    module_.devices.remove(this);
    connections.close_all(reason);
    completion_queues.close_all(reason);
    memory_regions.close_all(reason);
    // The queue pairs are gone, and with them whatever pinned these.
    retired_.clear();
    // Pages whose ArrayBuffer was transferred away are still reachable from JavaScript. They share
    // this holder and end with the last view; the fabric device has to wait for them.
    if (std::all_of(regions_.begin(), regions_.end(),
                    [](auto* region) { return region == nullptr; })) {
        device_.reset();
    }
}

uint32_t DeviceHolder::add_region(fabric::MemoryRegion* region) {
    if (free_indexes_.empty()) {
        regions_.push_back(region);
        return static_cast<uint32_t>(regions_.size() - 1);
    }
    const uint32_t index = free_indexes_.back();
    free_indexes_.pop_back();
    regions_[index] = region;
    return index;
}

void DeviceHolder::remove_region(uint32_t index) {
    regions_[index] = nullptr;
    free_indexes_.push_back(index);
}

void DeviceHolder::retire(std::unique_ptr<fabric::MemoryRegion> region) {
    if (region->in_flight() > 0) retired_.push_back(std::move(region));
}

void DeviceHolder::sweep_retired() {
    std::erase_if(retired_, [](const auto& region) { return region->in_flight() == 0; });
}

Napi::Function Device::define(Napi::Env env) {
    return DefineClass(env, "Device",
                       {
                           InstanceAccessor<&Device::info>("info"),
                           InstanceMethod<&Device::allocate>("allocate", napi_default_method),
                           InstanceMethod<&Device::create_completion_queue>("createCompletionQueue",
                                                                            napi_default_method),
                           InstanceMethod<&Device::connect>("connect", napi_default_method),
                           InstanceMethod<&Device::listen>("listen", napi_default_method),
                           InstanceMethod<&Device::close>("close", napi_default_method),
                       });
}

Napi::Object Device::create(Napi::Env env, std::unique_ptr<fabric::Device> device) {
    Module& module = Module::of(env);
    auto holder = std::make_shared<DeviceHolder>(module, std::move(device));
    return construct(env, module.device_class, holder);
}

Device::Device(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    auto* init = construction_arg<std::shared_ptr<DeviceHolder>>(info);
    if (init == nullptr) return;
    holder_ = *init;
    Value().TypeTag(&kTypeTag);
}

Napi::Object device_info(Napi::Env env, const fabric::DeviceInfo& info) {
    auto out = Napi::Object::New(env);
    out.Set("provider", info.provider);
    out.Set("name", info.name);
    out.Set("atomics", info.atomics);
    out.Set("maxInlineBytes", info.max_inline_bytes);
    out.Set("maxSendDepth", info.max_send_depth);
    out.Set("maxReceiveDepth", info.max_receive_depth);
    out.Set("maxCompletionDepth", info.max_completion_depth);
    out.Set("maxMessageBytes", static_cast<double>(info.max_message_bytes));
    out.Set("maxRequestPrivateData", info.max_request_private_data);
    out.Set("maxReplyPrivateData", info.max_reply_private_data);
    return out;
}

Napi::Value Device::info(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    fabric::Device* device = holder_->get();
    return device == nullptr ? env.Null() : Napi::Value(device_info(env, device->info()));
}

Napi::Value Device::allocate(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    fabric::Device* device = holder_->get();
    if (device == nullptr) return throw_closed(env, "device"), env.Undefined();
    const double bytes = double_arg(info, 0);
    std::unique_ptr<fabric::MemoryRegion> region;
    const int failed = device->allocate(static_cast<size_t>(bytes), uint32_arg(info, 1), &region);
    if (failed != 0) {
        const auto size = std::to_string(static_cast<uint64_t>(bytes)) + " bytes";
        return throw_fabric_error(env, failed, "allocate", size), env.Undefined();
    }
    return MemoryRegion::create(env, holder_, std::move(region));
}

Napi::Value Device::create_completion_queue(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    fabric::Device* device = holder_->get();
    if (device == nullptr) return throw_closed(env, "device"), env.Undefined();
    const uint32_t depth = uint32_arg(info, 0);
    auto holder = std::make_shared<CompletionQueueHolder>();
    holder->device = holder_;
    const int failed = device->create_completion_queue(depth, &holder->queue);
    if (failed != 0) {
        const auto detail = "of depth " + std::to_string(depth);
        return throw_fabric_error(env, failed, "create_completion_queue", detail), env.Undefined();
    }
    return CompletionQueue::create(env, std::move(holder), depth);
}

Napi::Value Device::connect(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    fabric::Device* device = holder_->get();
    if (device == nullptr) return throw_closed(env, "device"), env.Undefined();
    const std::string address = string_arg(info, 0);
    const auto [data, bytes] = bytes_arg(info, 1);
    QueuePairArguments arguments;
    if (!arguments.read(info, 2)) return env.Undefined();
    std::unique_ptr<fabric::QueuePair> made;
    const int failed = device->connect(address, arguments.options, data, bytes, &made);
    if (failed != 0) return throw_fabric_error(env, failed, "connect", address), env.Undefined();
    return QueuePair::create(env, holder_, arguments, std::move(made));
}

Napi::Value Device::listen(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    fabric::Device* device = holder_->get();
    if (device == nullptr) return throw_closed(env, "device"), env.Undefined();
    const std::string address = string_arg(info, 0);
    auto holder = std::make_shared<ListenerHolder>();
    holder->device = holder_;
    const int failed =
        device->listen(address, static_cast<int>(uint32_arg(info, 1)), &holder->listener);
    if (failed != 0) return throw_fabric_error(env, failed, "listen", address), env.Undefined();
    return Listener::create(env, std::move(holder));
}

void Device::close(const Napi::CallbackInfo&) {
    holder_->close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
