// Errors of the control path: the RfaasError class of lib/errors.ts, made here.
#pragma once

#include <napi.h>
#include <string>

namespace rfaas::addon {

// Throws RfaasError{code, message, errno, syscall}. `error` is a negative errno, as Node's own
// errors carry it. `detail` says on what, for example an address; it may be empty.
void throw_fabric_error(Napi::Env env, int error, const char* syscall, const std::string& detail);
void throw_error(Napi::Env env, const char* code, const std::string& message, int error,
                 const char* syscall);

// The object was closed, by itself or with its parent.
void throw_closed(Napi::Env env, const char* what);

}  // namespace rfaas::addon
