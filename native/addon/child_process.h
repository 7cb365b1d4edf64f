// Processes that the executor manager starts. Node can do it, too, but it forks: that copies the
// page tables of the whole process, milliseconds for a manager of 100 MB in which nothing else
// happens, and each page that is written afterwards faults. Here the child borrows the memory until
// it is another program. And it tells what a process has used.
#pragma once

#include <napi.h>

namespace rfaas::addon {

// Instead of a descriptor.
constexpr int kSpawnPipe = -1;
constexpr int kSpawnNull = -2;

// spawn(path, arguments, environment, descriptors, onExit), see lib/native.ts.
Napi::Value spawn(const Napi::CallbackInfo& info);

}  // namespace rfaas::addon
