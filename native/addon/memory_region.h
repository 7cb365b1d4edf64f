// Registered pages as an ArrayBuffer.
#pragma once

#include <napi.h>
#include <memory>

#include "addon/device.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

// The pages, shared by the MemoryRegion object and by its ArrayBuffer: whichever is collected last
// retires them, so no view can outlive its bytes.
class RegionPages {
  public:
    RegionPages(std::shared_ptr<DeviceHolder> device, std::unique_ptr<fabric::MemoryRegion> region);
    ~RegionPages() { retire(); }
    RegionPages(const RegionPages&) = delete;
    RegionPages& operator=(const RegionPages&) = delete;

    void retire();  // no work request may name the region from now on

    [[nodiscard]] fabric::MemoryRegion* get() const { return region_.get(); }
    [[nodiscard]] uint32_t index() const { return index_; }
    [[nodiscard]] const std::shared_ptr<DeviceHolder>& device() const { return device_; }

  private:
    std::shared_ptr<DeviceHolder> device_;
    std::unique_ptr<fabric::MemoryRegion> region_;
    uint32_t index_;
};

class MemoryRegion final : public Napi::ObjectWrap<MemoryRegion>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a02, 0xa1c3a5f2d7e90002};
    static Napi::Function define(Napi::Env env);
    static Napi::Value create(Napi::Env env, std::shared_ptr<DeviceHolder> device,
                              std::unique_ptr<fabric::MemoryRegion> region);
    explicit MemoryRegion(const Napi::CallbackInfo& info);
    ~MemoryRegion() override;
    void close(CloseReason reason) override;

    // Null once closed. The region stays where it is for as long as in_flight() is not 0, so who
    // needs it longer pins it.
    [[nodiscard]] fabric::MemoryRegion* get() const { return pages_ ? pages_->get() : nullptr; }

  private:
    Napi::Value buffer(const Napi::CallbackInfo& info);
    Napi::Value index(const Napi::CallbackInfo& info);
    Napi::Value address(const Napi::CallbackInfo& info);
    Napi::Value rkey(const Napi::CallbackInfo& info);
    Napi::Value in_flight(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    std::shared_ptr<DeviceHolder> device_;
    std::shared_ptr<RegionPages> pages_;
    Napi::Reference<Napi::ArrayBuffer> buffer_;
};

}  // namespace rfaas::addon
