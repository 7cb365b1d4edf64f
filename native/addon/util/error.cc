#include "addon/util/error.h"

#include <cstring>

#include "addon/module.h"

namespace rfaas::addon {

void throw_error(Napi::Env env, const char* code, const std::string& message, int error,
                 const char* syscall) {
    const Napi::HandleScope scope(env);
    auto details = Napi::Object::New(env);
    if (error != 0) details.Set("errno", error);
    if (syscall != nullptr) details.Set("syscall", syscall);
    const Napi::Object made = Module::of(env).error_class.New(
        {Napi::String::New(env, code), Napi::String::New(env, message), details});
    if (!env.IsExceptionPending()) napi_throw(env, made);
}

void throw_fabric_error(Napi::Env env, int error, const char* syscall, const std::string& detail) {
    std::string message = syscall;
    if (!detail.empty()) message += " " + detail;
    message += ": ";
    message += std::strerror(-error);
    throw_error(env, "ERR_RFAAS_FABRIC", message, error, syscall);
}

void throw_closed(Napi::Env env, const char* what) {
    throw_error(env, "ERR_RFAAS_CLOSED", std::string("the ") + what + " is closed", 0, nullptr);
}

}  // namespace rfaas::addon
