// Reads arguments that TypeScript has already checked. A wrong type here is a bug of lib/, so it
// reads as zero or as nothing instead of becoming an error of its own.
#pragma once

#include <napi.h>
#include <cstdint>
#include <string>
#include <utility>

namespace rfaas::addon {

inline uint32_t uint32_arg(const Napi::CallbackInfo& info, size_t index) {
    return info[index].IsNumber() ? info[index].As<Napi::Number>().Uint32Value() : 0;
}

inline double double_arg(const Napi::CallbackInfo& info, size_t index) {
    return info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : 0;
}

inline std::string string_arg(const Napi::CallbackInfo& info, size_t index) {
    return info[index].IsString() ? info[index].As<Napi::String>().Utf8Value() : std::string();
}

// Valid during the call only.
inline std::pair<const uint8_t*, size_t> bytes_arg(const Napi::CallbackInfo& info, size_t index) {
    if (!info[index].IsTypedArray()) return {nullptr, 0};
    const auto array = info[index].As<Napi::Uint8Array>();
    return {array.Data(), array.ByteLength()};
}

// The native half of an object of class T, or null for anything else.
template <typename T>
T* object_arg(const Napi::CallbackInfo& info, size_t index) {
    if (!info[index].IsObject()) return nullptr;
    const auto object = info[index].As<Napi::Object>();
    return object.CheckTypeTag(&T::kTypeTag) ? T::Unwrap(object) : nullptr;
}

inline Napi::Uint8Array copy_bytes(Napi::Env env, const uint8_t* data, size_t length) {
    auto out = Napi::Uint8Array::New(env, length);
    for (size_t i = 0; i < length; ++i) out[i] = data[i];
    return out;
}

}  // namespace rfaas::addon
