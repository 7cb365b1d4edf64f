#include "addon/memory_region.h"

#include <utility>

#include "addon/util/error.h"

namespace rfaas::addon {

RegionPages::RegionPages(std::shared_ptr<DeviceHolder> device,
                         std::unique_ptr<fabric::MemoryRegion> region)
    : device_(std::move(device)),
      region_(std::move(region)),
      index_(device_->add_region(region_.get())) {}

void RegionPages::retire() {
    if (region_ == nullptr) return;
    device_->remove_region(index_);
    device_->retire(std::move(region_));
}

Napi::Function MemoryRegion::define(Napi::Env env) {
    return DefineClass(env, "MemoryRegion",
                       {
                           InstanceAccessor<&MemoryRegion::buffer>("buffer"),
                           InstanceAccessor<&MemoryRegion::index>("index"),
                           InstanceAccessor<&MemoryRegion::address>("address"),
                           InstanceAccessor<&MemoryRegion::rkey>("rkey"),
                           InstanceAccessor<&MemoryRegion::in_flight>("inFlight"),
                           InstanceMethod<&MemoryRegion::close>("close", napi_default_method),
                       });
}

Napi::Value MemoryRegion::create(Napi::Env env, std::shared_ptr<DeviceHolder> device,
                                 std::unique_ptr<fabric::MemoryRegion> region) {
    auto pages = std::make_shared<RegionPages>(std::move(device), std::move(region));
    return construct(env, Module::of(env).memory_region_class, pages);
}

MemoryRegion::MemoryRegion(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    auto* init = construction_arg<std::shared_ptr<RegionPages>>(info);
    if (init == nullptr) return;
    Value().TypeTag(&kTypeTag);
    // The engine counts an external backing store by its length, so nothing has to be told to
    // AdjustExternalMemory() on top of it.
    auto* share = new std::shared_ptr<RegionPages>(*init);
    napi_value buffer = nullptr;
    const napi_status made = napi_create_external_arraybuffer(
        info.Env(), (*share)->get()->data(), (*share)->get()->length(),
        [](napi_env, void*, void* hint) {
            delete static_cast<std::shared_ptr<RegionPages>*>(hint);
        },
        share, &buffer);
    if (made != napi_ok) {
        delete share;
        throw_error(info.Env(), "ERR_RFAAS_FABRIC",
                    "this JavaScript runtime does not allow external ArrayBuffers, which memory "
                    "regions are",
                    0, "allocate");
        return;
    }
    pages_ = *init;
    device_ = pages_->device();
    device_->memory_regions.add(this);
    buffer_ = Napi::Persistent(Napi::ArrayBuffer(info.Env(), buffer));
}

// Collected, not closed: views may still be in use, and they share the pages.
MemoryRegion::~MemoryRegion() {
    if (pages_) device_->memory_regions.remove(this);
}

void MemoryRegion::close(CloseReason reason) {
    if (!pages_) return;
    device_->memory_regions.remove(this);
    const auto pages = std::exchange(pages_, nullptr);
    if (reason == CloseReason::kEnvironmentEnd) {
        pages->retire();
        return;
    }
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    const Napi::ArrayBuffer buffer = buffer_.Value();
    // If somebody has transferred the buffer, the views of the new one are out of reach. The pages
    // then stay until those are collected.
    if (!buffer.IsDetached()) {
        Napi::ArrayBuffer(env, buffer).Detach();
        pages->retire();
    }
    buffer_.Reset();
}

Napi::Value MemoryRegion::buffer(const Napi::CallbackInfo& info) {
    return buffer_.IsEmpty() ? info.Env().Null() : Napi::Value(buffer_.Value());
}

Napi::Value MemoryRegion::index(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), pages_ ? pages_->index() : -1.0);
}

Napi::Value MemoryRegion::address(const Napi::CallbackInfo& info) {
    return Napi::BigInt::New(info.Env(),
                             pages_ ? pages_->get()->remote_key().address : uint64_t{0});
}

Napi::Value MemoryRegion::rkey(const Napi::CallbackInfo& info) {
    return Napi::BigInt::New(info.Env(), pages_ ? pages_->get()->remote_key().rkey : uint64_t{0});
}

Napi::Value MemoryRegion::in_flight(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), pages_ ? pages_->get()->in_flight() : 0);
}

void MemoryRegion::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
