// The addon's entry: one Module for each JavaScript environment, and what lib/native.ts declares.
#include "addon/module.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <vector>

#include "addon/child_process.h"
#include "addon/completion_queue.h"
#include "addon/device.h"
#include "addon/invoker.h"
#include "addon/listener.h"
#include "addon/memory_region.h"
#include "addon/queue_pair.h"
#include "addon/records.h"
#include "addon/util/args.h"
#include "addon/util/error.h"
#include "addon/worker.h"
#include "fabric/fabric.h"

namespace rfaas::addon {

Module::Module(Napi::Env env) : env_(env), async_context_(std::in_place, env, "rfaas") {
    napi_add_async_cleanup_hook(env, &Module::end, this, &cleanup_hook_);
}

Module::~Module() = default;

void Module::call(const Napi::FunctionReference& function,
                  std::initializer_list<napi_value> arguments) {
    if (ending_) return;
    const Napi::HandleScope scope(env_);
    function.Value().MakeCallback(env_.Global(), arguments, *async_context_);
    if (env_.IsExceptionPending()) {
        napi_fatal_exception(env_, env_.GetAndClearPendingException().Value());
    }
}

// The environment (a worker or the process) ends: no more JavaScript runs. Everything is closed
// here and not in finalizers, whose order is nobody's; the hook is given back when libuv has let
// go of the last handle.
void Module::end(napi_async_cleanup_hook_handle hook, void* self) {
    auto* module = static_cast<Module*>(self);
    module->ending_ = true;
    module->workers.close_all(CloseReason::kEnvironmentEnd);
    module->devices.close_all(CloseReason::kEnvironmentEnd);
    module->processes.close_all(CloseReason::kEnvironmentEnd);
    module->async_context_.reset();
    module->handles.when_idle([hook] { napi_remove_async_cleanup_hook(hook); });
}

namespace {

// The class whose instances the control path throws.
void initialize(const Napi::CallbackInfo& info) {
    Module::of(info.Env()).error_class = Napi::Persistent(info[0].As<Napi::Function>());
}

// The process is about to exit: Node does not end the environment of its main thread in every case,
// and what listeners have left in the file system would stay.
void close_all(const Napi::CallbackInfo& info) {
    Module::of(info.Env()).devices.close_all(CloseReason::kAsked);
}

Napi::Value lock_file(const Napi::CallbackInfo& info) {
    const std::string path = info[0].ToString().Utf8Value();
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        throw_error(info.Env(), "ERR_RFAAS_INTERNAL", path + " cannot be opened", -errno, "open");
        return info.Env().Undefined();
    }
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Number::New(info.Env(), fd);
    ::close(fd);
    return Napi::Number::New(info.Env(), -EAGAIN);
}

Napi::Value providers(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto statuses = fabric::providers();
    auto out = Napi::Array::New(env, statuses.size());
    for (uint32_t i = 0; i < statuses.size(); ++i) {
        const auto& status = statuses[i];
        auto devices = Napi::Array::New(env, status.devices.size());
        for (uint32_t d = 0; d < status.devices.size(); ++d) {
            devices[d] = device_info(env, status.devices[d]);
        }
        auto entry = Napi::Object::New(env);
        entry.Set("name", status.name);
        entry.Set("available", status.available);
        entry.Set("reason", status.available ? env.Null()
                                             : Napi::Value(Napi::String::New(env, status.reason)));
        entry.Set("devices", devices);
        out[i] = entry;
    }
    return out;
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::string provider = string_arg(info, 0);
    const std::string name = string_arg(info, 1);
    std::unique_ptr<fabric::Device> device;
    std::string reason;
    const int failed = fabric::open_device(provider, name, &device, &reason);
    if (failed != 0) {
        const std::string what = name.empty() ? provider : provider + " device " + name;
        throw_error(env, "ERR_RFAAS_FABRIC_UNAVAILABLE", what + ": " + reason, failed,
                    "open_device");
        return env.Undefined();
    }
    return Device::create(env, std::move(device));
}

using Entry = std::pair<const char*, size_t>;

Napi::Object table(Napi::Env env, std::initializer_list<Entry> entries) {
    auto out = Napi::Object::New(env);
    for (const auto& [name, value] : entries) out.Set(name, static_cast<double>(value));
    return out;
}

template <typename Enum>
constexpr size_t n(Enum value) {
    return static_cast<size_t>(value);
}

Napi::Object constants(Napi::Env env) {
    using namespace fabric;
    auto out = table(env, {
                              {"batch", kBatch},
                              {"noRegion", kNoRegion},
                              {"stagedRegion", kStagedRegion},
                              {"receiveRecords", kReceiveRecords},
                              {"stagingArea", kStagingArea},
                          });
    out.Set("segmentRecord", table(env, {
                                            {"size", sizeof(SegmentRecord)},
                                            {"region", offsetof(SegmentRecord, region)},
                                            {"length", offsetof(SegmentRecord, length)},
                                            {"offset", offsetof(SegmentRecord, offset)},
                                        }));
    out.Set("sendRecord", table(env, {
                                         {"size", sizeof(SendRecord)},
                                         {"id", offsetof(SendRecord, id)},
                                         {"opcode", offsetof(SendRecord, opcode)},
                                         {"flags", offsetof(SendRecord, flags)},
                                         {"segmentCount", offsetof(SendRecord, segment_count)},
                                         {"immediate", offsetof(SendRecord, immediate)},
                                         {"segments", offsetof(SendRecord, segments)},
                                         {"remoteAddress", offsetof(SendRecord, remote_address)},
                                         {"rkey", offsetof(SendRecord, rkey)},
                                         {"compareAdd", offsetof(SendRecord, compare_add)},
                                         {"swap", offsetof(SendRecord, swap)},
                                     }));
    out.Set("receiveRecord", table(env, {
                                            {"size", sizeof(ReceiveRecord)},
                                            {"id", offsetof(ReceiveRecord, id)},
                                            {"segment", offsetof(ReceiveRecord, segment)},
                                        }));
    out.Set("completionRecord",
            table(env, {
                           {"size", sizeof(Completion)},
                           {"id", offsetof(Completion, id)},
                           {"queuePair", offsetof(Completion, queue_pair)},
                           {"byteLength", offsetof(Completion, byte_length)},
                           {"immediate", offsetof(Completion, immediate)},
                           {"status", offsetof(Completion, status)},
                           {"opcode", offsetof(Completion, opcode)},
                           {"hasImmediate", offsetof(Completion, has_immediate)},
                       }));
    out.Set("access", table(env, {
                                     {"remoteWrite", kRemoteWrite},
                                     {"remoteRead", kRemoteRead},
                                     {"remoteAtomic", kRemoteAtomic},
                                 }));
    out.Set("sendFlags", table(env, {
                                        {"signaled", kSignaled},
                                        {"inline", kInline},
                                        {"fence", kFence},
                                    }));
    out.Set("opcodes", table(env, {
                                      {"write", n(Opcode::kWrite)},
                                      {"write-immediate", n(Opcode::kWriteImm)},
                                      {"read", n(Opcode::kRead)},
                                      {"send", n(Opcode::kSend)},
                                      {"send-immediate", n(Opcode::kSendImm)},
                                      {"fetch-add", n(Opcode::kFetchAdd)},
                                      {"compare-swap", n(Opcode::kCompareSwap)},
                                      {"receive", n(Opcode::kReceive)},
                                      {"receive-write", n(Opcode::kReceiveWrite)},
                                  }));
    out.Set("statuses",
            table(env, {
                           {"success", n(Status::kSuccess)},
                           {"local-protection", n(Status::kLocalProtection)},
                           {"local-length", n(Status::kLocalLength)},
                           {"remote-access", n(Status::kRemoteAccess)},
                           {"remote-invalid", n(Status::kRemoteInvalid)},
                           {"rnr-retry-exceeded", n(Status::kRnrRetryExceeded)},
                           {"transport-retry-exceeded", n(Status::kTransportRetryExceeded)},
                           {"flushed", n(Status::kFlushed)},
                           {"fatal", n(Status::kFatal)},
                       }));
    out.Set("states", table(env, {
                                     {"connecting", n(QueuePairState::kConnecting)},
                                     {"connected", n(QueuePairState::kConnected)},
                                     {"error", n(QueuePairState::kError)},
                                     {"closed", n(QueuePairState::kClosed)},
                                 }));
    out.Set("events", table(env, {
                                     {"established", n(ConnectionEvent::kEstablished)},
                                     {"rejected", n(ConnectionEvent::kRejected)},
                                     {"unreachable", n(ConnectionEvent::kUnreachable)},
                                     {"disconnected", n(ConnectionEvent::kDisconnected)},
                                 }));
    out.Set("callRecord",
            table(env, {
                           {"size", sizeof(CallRecord)},
                           {"worker", offsetof(CallRecord, request.worker)},
                           {"slot", offsetof(CallRecord, request.slot)},
                           {"function", offsetof(CallRecord, request.function)},
                           {"inputRegion", offsetof(CallRecord, request.input_region)},
                           {"inputOffset", offsetof(CallRecord, request.input_offset)},
                           {"inputLength", offsetof(CallRecord, request.input_length)},
                           {"outputRegion", offsetof(CallRecord, request.output_region)},
                           {"outputOffset", offsetof(CallRecord, request.output_offset)},
                           {"outputCapacity", offsetof(CallRecord, request.output_capacity)},
                           {"timeoutUs", offsetof(CallRecord, request.timeout_us)},
                           {"alone", offsetof(CallRecord, alone)},
                           {"patienceUs", offsetof(CallRecord, patience_us)},
                           {"resultLength", offsetof(CallRecord, result_length)},
                           {"outcomes", offsetof(CallRecord, outcomes)},
                           {"hold", offsetof(CallRecord, hold)},
                           {"queued", offsetof(CallRecord, queued)},
                           {"queue", offsetof(CallRecord, queue)},
                       }));
    out.Set("outcomeRecord", table(env, {
                                            {"size", sizeof(invocation::CallOutcome)},
                                            {"worker", offsetof(invocation::CallOutcome, worker)},
                                            {"slot", offsetof(invocation::CallOutcome, slot)},
                                            {"status", offsetof(invocation::CallOutcome, status)},
                                            {"length", offsetof(invocation::CallOutcome, length)},
                                        }));
    out.Set("runRecord", table(env, {
                                        {"size", sizeof(RecordRun)},
                                        {"next", offsetof(RecordRun, next)},
                                        {"count", offsetof(RecordRun, count)},
                                        {"function", offsetof(RecordRun, function)},
                                        {"timeoutUs", offsetof(RecordRun, timeout_us)},
                                        {"inputRegion", offsetof(RecordRun, input_region)},
                                        {"inputOffset", offsetof(RecordRun, input_offset)},
                                        {"inputBytes", offsetof(RecordRun, input_bytes)},
                                        {"outputRegion", offsetof(RecordRun, output_region)},
                                        {"outputOffset", offsetof(RecordRun, output_offset)},
                                        {"outputBytes", offsetof(RecordRun, output_bytes)},
                                    }));
    out.Set("turnRecord", table(env, {
                                         {"size", sizeof(Turn)},
                                         {"run", offsetof(Turn, run)},
                                         {"record", offsetof(Turn, record)},
                                     }));
    out.Set("workerRecord",
            table(env, {
                           {"size", sizeof(WorkerRecord)},
                           {"budgetUs", offsetof(WorkerRecord, budget_us)},
                           {"slot", offsetof(WorkerRecord, slot)},
                           {"length", offsetof(WorkerRecord, length)},
                           {"function", offsetof(WorkerRecord, function)},
                           {"inputLength", offsetof(WorkerRecord, input_length)},
                           {"outputCapacity", offsetof(WorkerRecord, output_capacity)},
                           {"arrivedMs", offsetof(WorkerRecord, arrived_ms)},
                           {"deadlineMs", offsetof(WorkerRecord, deadline_ms)},
                           {"requestId", offsetof(WorkerRecord, request_id)},
                       }));
    out.Set("workerDown", static_cast<double>(invocation::kWorkerDown));
    out.Set("answered", static_cast<double>(kAnswered));
    out.Set("queueRoom", static_cast<double>(kQueueRoom));
    out.Set("outcomeBatch", static_cast<double>(kOutcomeBatch));
    out.Set("spawnPipe", kSpawnPipe);
    out.Set("spawnNull", kSpawnNull);
    using wire::CallStatus;
    out.Set("callStatuses", table(env, {
                                           {"ok", n(CallStatus::kOk)},
                                           {"functionError", n(CallStatus::kFunctionError)},
                                           {"unknownFunction", n(CallStatus::kUnknownFunction)},
                                           {"outputTooSmall", n(CallStatus::kOutputTooSmall)},
                                           {"deadline", n(CallStatus::kDeadline)},
                                           {"leaseEnded", n(CallStatus::kLeaseEnded)},
                                           {"badRequest", n(CallStatus::kBadRequest)},
                                           {"workerLost", n(CallStatus::kWorkerLost)},
                                           {"leaseRevoked", n(CallStatus::kLeaseRevoked)},
                                           {"notReceived", n(CallStatus::kNotReceived)},
                                       }));
    return out;
}

template <typename Class>
void export_class(Napi::Env env, Napi::Object classes, const char* name,
                  Napi::FunctionReference& reference) {
    const Napi::Function constructor = Class::define(env);
    reference = Napi::Persistent(constructor);
    classes.Set(name, constructor);
}

}  // namespace

Napi::Object initialize_addon(Napi::Env env, Napi::Object exports) {
    auto* module = new Module(env);
    env.SetInstanceData(module);

    exports.Set("initialize", Napi::Function::New<initialize>(env, "initialize"));
    exports.Set("closeAll", Napi::Function::New<close_all>(env, "closeAll"));
    exports.Set("lockFile", Napi::Function::New<lock_file>(env, "lockFile"));
    exports.Set("spawn", Napi::Function::New<spawn>(env, "spawn"));
    exports.Set("providers", Napi::Function::New<providers>(env, "providers"));
    exports.Set("openDevice", Napi::Function::New<open_device>(env, "openDevice"));
    exports.Set("createInvoker", Napi::Function::New<Invoker::create>(env, "createInvoker"));
    exports.Set("createWorker", Napi::Function::New<Worker::create>(env, "createWorker"));
    exports.Set("constants", constants(env));

    // Only for tracing: their constructors cannot be called from JavaScript.
    auto classes = Napi::Object::New(env);
    export_class<Device>(env, classes, "Device", module->device_class);
    export_class<MemoryRegion>(env, classes, "MemoryRegion", module->memory_region_class);
    export_class<CompletionQueue>(env, classes, "CompletionQueue", module->completion_queue_class);
    export_class<QueuePair>(env, classes, "QueuePair", module->queue_pair_class);
    export_class<Listener>(env, classes, "Listener", module->listener_class);
    export_class<ConnectionRequest>(env, classes, "ConnectionRequest",
                                    module->connection_request_class);
    export_class<Invoker>(env, classes, "Invoker", module->invoker_class);
    export_class<Worker>(env, classes, "Worker", module->worker_class);
    exports.Set("classes", classes);
    return exports;
}

}  // namespace rfaas::addon

static Napi::Object rfaas_initialize(Napi::Env env, Napi::Object exports) {
    return rfaas::addon::initialize_addon(env, exports);
}

NODE_API_MODULE(rfaas, rfaas_initialize)
