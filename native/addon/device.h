// A device and what belongs to it.
//
// DeviceHolder owns the fabric device; every child shares it, so the device outlives them whatever
// the garbage collector does first. Closing it closes the children: connections, then completion
// queues, then regions.
#pragma once

#include <napi.h>
#include <memory>
#include <string>
#include <vector>

#include "addon/module.h"
#include "addon/util/reaper.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

class DeviceHolder final : public Closable {
  public:
    DeviceHolder(Module& module, std::unique_ptr<fabric::Device> device);
    ~DeviceHolder() override;
    void close(CloseReason reason) override;

    // Null once closed.
    [[nodiscard]] fabric::Device* get() const { return closed_ ? nullptr : device_.get(); }

    // Regions by the index that work requests name them with; null for what is not there.
    uint32_t add_region(fabric::MemoryRegion* region);
    void remove_region(uint32_t index);
    [[nodiscard]] fabric::MemoryRegion* region(uint32_t index) const {
        return index < regions_.size() ? regions_[index] : nullptr;
    }

    // Ends a region that nobody can reach any more: now, or when its last request is complete.
    void retire(std::unique_ptr<fabric::MemoryRegion> region);
    // To be called when completions came in or a queue pair ended.
    void sweep() {
        if (!retired_.empty()) sweep_retired();
    }

    Reaper connections;  // queue pairs, listeners, and whoever builds on them
    Reaper completion_queues;
    Reaper memory_regions;

  private:
    void sweep_retired();

    Module& module_;
    // Declared before the regions: members are destroyed in reverse order.
    std::unique_ptr<fabric::Device> device_;
    std::vector<fabric::MemoryRegion*> regions_;
    std::vector<uint32_t> free_indexes_;
    std::vector<std::unique_ptr<fabric::MemoryRegion>> retired_;
    bool closed_ = false;
};

class Device final : public Napi::ObjectWrap<Device> {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a01, 0xa1c3a5f2d7e90001};
    static Napi::Function define(Napi::Env env);
    static Napi::Object create(Napi::Env env, std::unique_ptr<fabric::Device> device);
    explicit Device(const Napi::CallbackInfo& info);

    [[nodiscard]] const std::shared_ptr<DeviceHolder>& holder() const { return holder_; }

  private:
    Napi::Value info(const Napi::CallbackInfo& info);
    Napi::Value allocate(const Napi::CallbackInfo& info);
    Napi::Value create_completion_queue(const Napi::CallbackInfo& info);
    Napi::Value connect(const Napi::CallbackInfo& info);
    Napi::Value listen(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    std::shared_ptr<DeviceHolder> holder_;
};

Napi::Object device_info(Napi::Env env, const fabric::DeviceInfo& info);

}  // namespace rfaas::addon
